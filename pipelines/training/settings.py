"""Settings of a run that goes on: which may change, which change with --change, and which never."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_origin, get_type_hints

import msgspec

from pipelines.config_io import CONFIG, from_plain, to_plain
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.safety.secrets import redacted_values
from pipelines.training.checkpoints import latest_checkpoint
from pipelines.training.config import TrainConfig

log = logging.getLogger(__name__)

RUNTIME_FIELDS = frozenset(
    {"storage", "name", "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "start_timeout",
     "max_failures", "prefetch", "checkpoint_every", "keep", "log_every", "log_samples", "model_name", "valid",
     "valid_every", "valid_every_steps", "valid_short_side", "patience", "activation_checkpointing", "skip_nonfinite",
     "from_scratch", "change"}
)  # fmt: skip
"""Fields that may change when a run continues: they say how it is run and scored, not what it learns."""

DURATION_FIELDS = frozenset({"epochs", "max_steps"})
"""Fields that may change as well if the learning rates do not depend on the end of the run."""

CHANGEABLE_FIELDS = DURATION_FIELDS | {
    "lr", "backbone_lr", "text_lr", "lr_batch", "schedule", "lr_milestones", "warmup_steps", "max_grad_norm",
    "precision", "clips_per_pass", "resize",
}  # fmt: skip
"""Fields that change what is learned, but not the samples and their order: they change with --change."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that a run goes on with in place of another."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{_flag(self.field)} {_text(self.before)} → {_text(self.after)}"


def continued(run: Folder, config: TrainConfig) -> tuple[TrainConfig, tuple[Change, ...]]:
    """Returns the settings of a run, and those that --change changes from here on.

    Args:
        run: the run's folder, with the settings it was started with if it has begun.
        config: settings of the command line.

    Raises:
        JobError: a setting differs that decides what is learned and is not in --change, or --change names none that may
            change; the message says what to do.
    """
    wanted = _with_changes(config, run)
    before = stored_config(run)
    if before is None:
        if config.change:
            raise JobError(
                f"--change {' '.join(config.change)}: the run {config.run_name!r} has not begun in {run.path()}, so "
                f"there is nothing to change. Give the setting itself, such as --lr."
            )
        return config, ()
    now = from_plain(TrainConfig, to_plain(wanted))  # without credentials, as the stored one
    free = RUNTIME_FIELDS | (DURATION_FIELDS if wanted.schedule == "multistep" else frozenset())
    changes = [
        Change(field, getattr(before, field), getattr(now, field))
        for field in TrainConfig.__slots__
        if field not in free and getattr(before, field) != getattr(now, field)
    ]
    named = {_name_of(change) for change in config.change}
    refused = [change for change in changes if change.field not in named]
    if refused:
        raise JobError(_refusal(run, config, refused))
    return wanted, tuple(changes)


def stored_config(run: Folder) -> TrainConfig | None:
    """Returns the settings that a run was started with, or that it last went on with; None if it has not begun.

    Raises:
        JobError: they cannot be read.
    """
    stored = run.read_if_there(CONFIG)
    if stored is None:
        return None
    try:
        return from_plain(TrainConfig, redacted_values(json.loads(stored)))
    except (ValueError, TypeError) as error:
        raise JobError(
            f"{run.path(CONFIG)} cannot be read ({error}), so nobody knows with what the run was started. Give another "
            f"--name to start anew."
        ) from error


def _with_changes(config: TrainConfig, run: Folder) -> TrainConfig:
    """Returns the config with the values of --change.

    Raises:
        JobError: a name or a value is wrong, or the setting would change the samples.
        ValueError: the config refuses a value.
    """
    hints, values = get_type_hints(TrainConfig), {}
    for change in config.change:
        name, text = _name_of(change), change.partition("=")[2]
        if name not in hints or not text:
            raise JobError(f"--change {change!r} names no setting. Write it as {_examples()}.")
        if name in RUNTIME_FIELDS:
            raise JobError(f"--change {change!r}: this may change at any time. Give it as {_flag(name)} {text}.")
        if name not in CHANGEABLE_FIELDS:
            raise JobError(
                f"--change {change!r} would change which samples are seen or what the model is, so nothing of the run "
                f"could go on. These may change: {', '.join(sorted(CHANGEABLE_FIELDS))}. For others give another "
                f"--name; --init {run.path()} takes the weights along."
            )
        given: Any = text.split(",") if get_origin(hints[name]) is tuple else text
        try:
            values[name] = msgspec.convert(given, hints[name], strict=False)
        except msgspec.ValidationError as error:
            raise JobError(f"--change {change!r}: {error}. Write it as {_examples()}.") from error
    return replace(config, **values)


def _refusal(run: Folder, config: TrainConfig, refused: Sequence[Change]) -> str:
    changeable = [one for one in refused if one.field in CHANGEABLE_FIELDS]
    flags = " ".join(f"{one.field}={_text(one.after)}" for one in changeable)
    hint = f" --change {flags} changes what may change from here on." if changeable else ""
    if not latest_checkpoint(run):
        hint += f" It has learned nothing yet: without the folder {run.path()} it starts anew."
    return (
        f"The run {config.run_name!r} in {run.path()} was started with other settings: "
        f"{', '.join(map(str, refused))}. Give the old ones to go on, or another --name to start anew.{hint}"
    )


def _name_of(change: str) -> str:
    return change.partition("=")[0].strip().lstrip("-").replace("-", "_")


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _examples() -> str:
    return "name=value, such as lr=5e-5 or lr_milestones=3,5"
