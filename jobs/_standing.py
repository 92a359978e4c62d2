"""Where the run of a name stands: with what it was started, how far it came, and whether its results are kept."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs._checkpoints import newest_checkpoint, step_of
from jobs._start import model_config
from jobs._train_data import own_tokenizer
from jobs.recipes import TrainConfig
from jobs.runtime import CONFIG, JobError, from_plain
from pipelines.clips import TrainData
from pipelines.files import Folder
from sgmg.checkpoints import TOKENIZER
from sgmg.tokenizer import Tokenizer

FINISHED, DATA = "finished.json", "data.json"

DRIVEN = frozenset(
    {"storage", "name", "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "start_timeout",
     "max_failures", "prefetch", "checkpoint_every", "keep", "log_every", "log_samples", "model_name", "valid_every"}
)  # fmt: skip
"""What may change when a run goes on: how it is run, not what it computes."""
LENGTH = frozenset({"epochs", "max_steps"})
"""May change, too, where the rates do not depend on the end of the run."""


def check_same_run(run: Folder, config: TrainConfig) -> None:
    """A name goes on only with what it was started with.

    Raises:
        JobError: another value of anything that decides what is computed.
    """
    if not run.has(CONFIG) or not newest_checkpoint(run):
        return
    try:
        before = from_plain(TrainConfig, json.loads(run.read(CONFIG)))
    except (ValueError, TypeError) as error:
        raise JobError(
            f"{run.path(CONFIG)} cannot be read ({error}), so nobody knows with what the run was started. Give another "
            f"--name to start anew."
        ) from error
    free = DRIVEN | (LENGTH if config.schedule == "drops" else frozenset())
    changed = {
        field: (getattr(before, field), getattr(config, field))
        for field in TrainConfig.__slots__
        if field not in free and getattr(before, field) != getattr(config, field)
    }
    if changed:
        said = ", ".join(f"--{name.replace('_', '-')} {old} → {new}" for name, (old, new) in changed.items())
        raise JobError(
            f"The run {config.run_name!r} in {run.path()} was started with other settings: {said}. Give the old ones "
            f"to go on, or another --name to start anew."
        )


def check_same_data(run: Folder, data: TrainData) -> None:
    """A run that is under way goes on only with the very rows it was started with: its position counts them.

    Raises:
        JobError: a folder was prepared again, to something else.
    """
    noted = json.loads(run.read(DATA)) if run.has(DATA) and newest_checkpoint(run) else {}
    for folder, rows in _rows_of(data).items():
        if noted.get(folder, rows) != rows:
            raise JobError(
                f"{folder} was prepared again since the run in {run.path()} was started, and holds other rows now: "
                f"nobody knows which of them were seen. Give another --name; --init {run.path()} takes the weights "
                f"along."
            )


def note_data(run: Folder, data: TrainData) -> None:
    """Keeps which rows a run learns from, for `check_same_data`."""
    run.write(DATA, (json.dumps(_rows_of(data), indent=2) + "\n").encode())


def _rows_of(data: TrainData) -> dict[str, str]:
    """A hash of the rows of each folder, in their order, and of what they were made of."""
    found = {}
    for part in data.parts:
        rows = [part.manifest.source_fingerprint, part.manifest.config, *map(asdict, part.manifest.shards)]
        found[part.folder.uri] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return found


def steps_of(config: TrainConfig, per_epoch: int) -> int:
    """Optimiser steps of the whole run."""
    whole = config.epochs * per_epoch
    return min(whole, config.max_steps) if config.max_steps else whole


def is_trained(run: Folder, steps: int) -> bool:
    """Whether the checkpoint of the last step is there."""
    newest = newest_checkpoint(run)
    return newest is not None and step_of(newest) >= steps


def is_finished(run: Folder, steps: int) -> bool:
    """Whether it is trained and its results were kept, so that nothing is left to do."""
    return is_trained(run, steps) and run.has(FINISHED) and json.loads(run.read(FINISHED))["steps"] >= steps


def mark_finished(run: Folder, steps: int) -> None:
    """Says so to the next start; after everything else."""
    run.write(FINISHED, (json.dumps({"steps": steps}) + "\n").encode())


def tokenizer_of(config: TrainConfig, run: Folder, init: Path | None) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it is to be saved with the model: not where it is roberta-base's.

    Args:
        init: the checkpoint the run starts from; None where there is none, or it is under way.
    """
    newest = newest_checkpoint(run)
    carried: Any = run.folder(newest) if newest else Folder(str(init)) if init else None
    if carried is not None and carried.has(TOKENIZER):
        return Tokenizer.from_json(carried.read(TOKENIZER).decode()), True
    if config.model == "tiny":
        return own_tokenizer((*config.data, *config.tokenizer_data), model_config(config).text.vocabulary), True
    return Tokenizer.from_pretrained(config.tokenizer), False
