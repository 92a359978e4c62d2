"""Model card: the README.md of a model on the Hugging Face hub, with the hub's metadata at its top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from sgmg.config import ResNetConfig
from sgmg.model import SgMg

TASK = "image-segmentation"
"""Task in the hub's list that is closest to referring video object segmentation."""
TAGS = ["arxiv:2307.13537", "referring-video-object-segmentation", "sgmg", "video"]
PAPER = "https://arxiv.org/abs/2307.13537"


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts in a model card, about the model and its training."""

    name: str  # name of the run, else of the preset
    preset: str
    backbone: str
    parameters: int
    short_side: int  # pixels
    data: Sequence[str]  # dataset/split
    training: str  # recipe, steps, run; may be empty
    metrics: Mapping[str, Mapping[str, float]]  # by dataset
    licence: str  # as the hub names it; empty if unknown

    @classmethod
    def of(cls, model: SgMg, short_side: int, notes: Mapping[str, Any]) -> "Facts":
        """Collects the facts from a model and the notes of its checkpoint.

        Raises:
            ValueError: the metrics in the notes are not numbers by dataset; the message shows the form.
        """
        parts = [("recipe", "recipe {}"), ("step", "{} optimiser steps"), ("mlflow_run", "MLflow run {}")]
        return cls(
            name=str(notes.get("run") or f"sgmg-{model.config.name}"),
            preset=model.config.name,
            backbone=_backbone(model),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            short_side=short_side,
            data=tuple(map(str, notes.get("data") or ())),
            training=", ".join(words.format(notes[key]) for key, words in parts if notes.get(key) is not None),
            metrics=_checked(notes.get("metrics") or {}),
            licence=str(notes.get("licence") or ""),
        )


def model_card(facts: Facts) -> ModelCard:
    """Returns the card, with metadata for the hub: licence, task, tags, and the scores as a model index."""
    results = [
        EvalResult(TASK, dataset, dataset, metric_type=name, metric_value=round(value, 4))
        for dataset, scores in facts.metrics.items()
        for name, value in scores.items()
    ]
    data = ModelCardData(
        language="en",
        library_name="sgmg",
        license=facts.licence or "other",
        license_name=None if facts.licence else "not-given",
        pipeline_tag=TASK,
        tags=[*TAGS, "model_hub_mixin"],
        model_name=facts.name,
        eval_results=results or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(facts)}")


def _text(facts: Facts) -> str:
    learned = "\n".join(f"- {_cell(name)}" for name in facts.data) or "Nothing is noted about the data."
    training = f"\n\n{_cell(facts.training)}." if facts.training else ""
    return f"""# {_cell(facts.name)}

A sentence in, the mask of its object in every frame out: an SgMg model (*Spectrum-guided Multi-granularity Referring
Video Object Segmentation*, ICCV 2023, {PAPER}) of the independent implementation `sgmg`.

## Use

```python
from sgmg import Segmenter

segmenter = Segmenter.from_pretrained("NAME")  # of this repository, or a folder with its files
masks, scores, boxes = segmenter(frames, ["the dog on the left"])  # frames: t h w 3 RGB bytes
```

## The model

| | |
|---|---|
| preset | `{facts.preset}` |
| backbone | {facts.backbone} |
| parameters | {facts.parameters / 1e6:.1f} million |
| shorter side of the frames at inference | {facts.short_side} pixels |

## What it learned from

{learned}{training}

## How good it is

{_scores(facts.metrics)}

## Licence of the weights

{_licence(facts.licence)}
"""


def _scores(metrics: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        f"| {_cell(data)} | {_cell(name)} | {value:.4f} |"
        for data, all_ in metrics.items()
        for name, value in all_.items()
    ]
    if not rows:
        return "It was not scored."
    return "\n".join(["| data | score | |", "|---|---|---|", *rows])


def _licence(licence: str) -> str:
    given = (
        f"`{_cell(licence)}`, chosen by whoever shares them."
        if licence
        else "Not given: ask whoever shares them before you use them."
    )
    return f"{given} The terms of the data they were learned from, and of the weights they started from, apply too."


def _backbone(model: SgMg) -> str:
    backbone = model.config.backbone
    if isinstance(backbone, ResNetConfig):
        return backbone.name
    kind = "Video Swin" if backbone.video else "Swin"
    return f"{kind}, {backbone.dim} channels, depths {'-'.join(map(str, backbone.depths))}"


def _checked(metrics: Any) -> dict[str, dict[str, float]]:
    try:
        return {
            str(data): {str(name): float(value) for name, value in scores.items()} for data, scores in metrics.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The notes hold metrics {metrics!r}. Give them by dataset: {{'ref-davis17/valid': {{'J&F': 0.6}}}}."
        ) from error


def _cell(text: str) -> str:
    """Makes text safe for a table cell: a single line, without characters that end the cell or begin a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
