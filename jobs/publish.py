"""Writes a trained model as a folder for the Hugging Face hub, with its model card, and uploads it where asked.

The folder is all that Segmenter.from_pretrained needs: weights, configuration, tokenizer, and the card as README.md.
The card says what the checkpoint's notes, its MLflow run and jobs/evaluate.py know. Nothing leaves this machine without
--push-to.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from jobs.common.cli import Exit, run
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.session import durable_folder
from pipelines.tracking.checkpoint_source import local_checkpoint
from pipelines.tracking.mlflow_run import limit_mlflow_timeouts, tracking_uri
from sgmg.checkpoints import CONFIG, MODEL, TOKENIZER
from sgmg.segmenter import Segmenter

SCORES = "scores.json"
SHARED = [MODEL, CONFIG, TOKENIZER, "README.md"]
VALID = "valid/"
"""How the metrics of a training's own scores begin."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishConfig:
    """What to share, and what to say of it."""

    checkpoint: str
    """A folder, a published .pth, mlflow:<run id>, or models:/<name>/<version>."""
    out: str
    """Local folder for the result, made where missing. A README.md that is there, perhaps edited, stays as it is."""
    licence: str = ""
    """Of the weights, as the hub names it: apache-2.0, cc-by-nc-4.0, … The data decide what you may give. Without one,
    the card says that none was given."""
    scores: tuple[str, ...] = ()
    """Results of jobs/evaluate.py, for the card: folders that hold scores.json."""
    push_to: str = ""
    """Upload to this repository of the hub, made where missing: name/of-model. Wants `hf auth login`."""
    public: bool = False
    """Let everybody see a repository that is made by --push-to."""
    tokenizer: str = ""
    """Folder or cached name of the tokenizer, where the checkpoint carries none; by default roberta-base."""
    short_side: int | None = None
    """Pixels of the shorter side that users' frames are resized to; by default as the checkpoint says, else 360."""
    storage: str = "runs"
    """Folder of the results, where MLflow is unless MLFLOW_TRACKING_URI says another place."""


def main(config: PublishConfig) -> Exit:
    """Writes the folder, says what the card could not tell, uploads where asked.

    Raises:
        JobError: there is no such checkpoint or scores, or the hub refused.
    """
    out = durable_folder(config.out, "--out")
    if "://" in out.uri:
        raise JobError(f"--out {config.out!r} is no local folder. Give one; --push-to uploads it.")
    found = Segmenter.from_checkpoint(
        local_checkpoint(config.checkpoint, config.storage),
        tokenizer=config.tokenizer or None,
        device="cpu",
        short_side=config.short_side,
    )
    metrics = {**_training_scores(found.notes, config.storage), **_scores(config.scores)}
    notes = {**found.notes, "metrics": metrics, **({"licence": config.licence} if config.licence else {})}
    shared = Segmenter(
        found.model, found.tokenizer, device="cpu", short_side=found.short_side, window=found.window, notes=notes
    )
    shared.save_pretrained(out.path())
    for missing, flag in ((not metrics, "--scores"), (not notes.get("licence"), "--licence")):
        if missing:
            print(f"the card says nothing of it: {flag} was not given")
    print(f"{config.checkpoint} is in {out.path()}; look at README.md before you share it")
    if config.push_to:
        _push(Path(out.path()), config)
    return Exit.CLEAN


def _push(folder: Path, config: PublishConfig) -> None:
    """Uploads what was written, an edited card included."""
    api = HfApi()
    try:
        name = api.create_repo(config.push_to, private=not config.public, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Model of sgmg", allow_patterns=SHARED
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise JobError(
            f"The hub did not take {config.push_to!r}: {reason} Everything lies in {folder}: log in with "
            f"`hf auth login`, correct the name, and give the same command again."
        ) from error
    print(f"uploaded: {commit.commit_url}")


def _training_scores(notes: Mapping[str, Any], storage: str) -> dict[str, dict[str, float]]:
    """The scores that its training gave to this very step, by the data they are of; empty where it gave none."""
    run_id = str(notes.get("mlflow_run") or "")
    if not run_id:
        return {}
    try:
        client = _client(storage)
        found = client.get_run(run_id)
        names = [name for name in found.data.metrics if name.startswith(VALID)]
        points = [point for name in names for point in client.get_metric_history(run_id, name)]
    except (MlflowException, JobError) as error:
        log.warning("the card lacks the scores of training: MLflow run %s cannot be read: %s", run_id, error)
        return {}
    values = {_figure(point.key): point.value for point in points if point.step == notes.get("step")}
    values.pop("videos lost", None)  # a count, no score
    return {_validated_on(found): values} if values else {}


def _client(storage: str) -> MlflowClient:
    """Of the store, if it is there: MLflow would make an empty one.

    Raises:
        JobError: it is not.
    """
    uri = tracking_uri(storage)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise JobError(f"there is no {uri}; give the --storage of the training, or set MLFLOW_TRACKING_URI")
    limit_mlflow_timeouts()
    return MlflowClient(uri)


def _figure(metric: str) -> str:
    """The name of a score behind that of its metric: MLflow allows neither & nor @."""
    return metric.removeprefix(VALID).replace("_and_", "&").replace("_at_", "@").replace("_", " ")


def _validated_on(found: Run) -> str:
    names = [
        one.dataset.name
        for one in (found.inputs.dataset_inputs if found.inputs else [])
        if any(tag.key == "mlflow.data.context" and tag.value == "validation" for tag in one.tags)
    ]
    return ", ".join(names) or "videos held out of the training data"


def _scores(places: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """The figures of jobs/evaluate.py by dataset and split.

    Raises:
        JobError: there is no scores.json, or it is another one.
    """
    found = {}
    for place in places:
        folder = Folder(durable_folder(place, "--scores").uri)
        try:
            values = json.loads(folder.read(SCORES))
            name = "/".join([values["dataset"], *filter(None, ["+".join(values.get("splits", []))])])
            found[name] = {key: float(value) for key, value in values["figures"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise JobError(
                f"--scores {place} holds no {SCORES} of jobs/evaluate.py ({type(error).__name__}: {error}). Give the "
                f"folder that was its --out."
            ) from error
    return found


if __name__ == "__main__":
    run(PublishConfig, main)
