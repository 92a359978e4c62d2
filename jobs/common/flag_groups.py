"""Sections of --help for a config of many fields, which itself stays flat."""

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, get_type_hints

import tyro

from pipelines.config_io import ConfigT

Groups = Mapping[str, Sequence[str]]
"""Titles of the sections, in order, each with the names of its fields."""

TRAINING: Groups = {
    "Data": (
        "data", "weights", "frames", "sentences_per_clip", "short_sides", "crop", "flip", "reverse", "colour", "resize",
        "valid", "holdout", "valid_every", "valid_every_steps", "valid_short_side", "patience",
    ),
    "Model": (
        "recipe", "model", "init", "from_scratch", "backbone_weights", "text_weights", "tokenizer", "tokenizer_data",
        "freeze_text", "multi_object",
    ),
    "Optimiser": (
        "global_batch", "clips_per_pass", "epochs", "max_steps", "lr", "backbone_lr", "text_lr", "lr_batch",
        "schedule", "lr_milestones", "warmup_steps", "max_grad_norm", "ema", "skip_nonfinite", "seed",
    ),
    "Hardware": (
        "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "precision",
        "activation_checkpointing",
    ),
    "Run": ("name", "change", "storage", "model_name", "checkpoint_every", "keep", "log_every"),
    "Advanced": ("start_timeout", "max_failures", "shuffle_window", "prefetch", "log_samples"),
}  # fmt: skip
"""Sections of the training jobs."""


def parse_grouped(
    config_type: type[ConfigT], groups: Groups, words: Sequence[str], default: ConfigT, description: str | None
) -> ConfigT:
    """Parses a command line with the flags of each group in a section of their own.

    tyro makes a section of every nested dataclass: it gets one for each group, and the values are put together again.

    Args:
        config_type: a dataclass; each of its fields is in one group.
        groups: of its fields; names that it does not have are skipped.
        words: the command line.
        default: the values of flags that are not given; tyro.MISSING in a field makes its flag required.
        description: text at the top of --help.

    Raises:
        ValueError: the config refuses a value.
    """
    hints, helps = get_type_hints(config_type, include_extras=True), field_helps(config_type)
    sections: dict[str, Any] = {}
    for title, names in groups.items():
        fields = [(name, Annotated[hints[name], tyro.conf.arg(help=helps[name])]) for name in names if name in hints]
        sections[title] = make_dataclass(title, fields, frozen=True, namespace={"__doc__": ""})
    nested = make_dataclass(
        config_type.__name__, [(title, tyro.conf.OmitArgPrefixes[section]) for title, section in sections.items()]
    )
    defaults = nested(
        **{
            title: section(**{name: getattr(default, name) for name in section.__dataclass_fields__})
            for title, section in sections.items()
        }
    )
    parsed = tyro.cli(nested, args=words, default=defaults, description=description)
    return config_type(**{name: value for title in sections for name, value in vars(getattr(parsed, title)).items()})


def field_helps(config_type: type) -> dict[str, str]:
    """Returns the texts below the fields of a dataclass, by name of the field."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(config_type))).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
