"""Everything that is checked before the first worker starts."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from pipelines.clips.stream import TrainData
from pipelines.config_io import CONFIG, from_plain
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.training.checkpoints import latest_checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.initial_model import start_model
from pipelines.training.run_state import DATA
from sgmg.checkpoints import load

RUNTIME_FIELDS = frozenset(
    {"storage", "name", "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "start_timeout",
     "max_failures", "prefetch", "checkpoint_every", "keep", "log_every", "log_samples", "model_name", "valid_every"}
)  # fmt: skip
"""What may change when a run goes on: how it is run, not what it computes."""


DURATION_FIELDS = frozenset({"epochs", "max_steps"})
"""May change, too, where the rates do not depend on the end of the run."""


def check_same_run(run: Folder, config: TrainConfig) -> None:
    """A name goes on only with what it was started with.

    Raises:
        JobError: another value of anything that decides what is computed.
    """
    if not run.has(CONFIG) or not latest_checkpoint(run):
        return
    try:
        before = from_plain(TrainConfig, json.loads(run.read(CONFIG)))
    except (ValueError, TypeError) as error:
        raise JobError(
            f"{run.path(CONFIG)} cannot be read ({error}), so nobody knows with what the run was started. Give another "
            f"--name to start anew."
        ) from error
    free = RUNTIME_FIELDS | (DURATION_FIELDS if config.schedule == "multistep" else frozenset())
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
    noted = json.loads(run.read(DATA)) if run.has(DATA) and latest_checkpoint(run) else {}
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


def check_start(config: TrainConfig, init: Path | None) -> None:
    """Refuses, before any worker is started, weights that do not fit or are not there.

    Raises:
        JobError: `--init` holds another preset than `--model`.
        FileNotFoundError, ValueError: as `start_model`.
    """
    if init and (found := load(init).model.config.name) != config.model:
        raise JobError(
            f"--init {config.init} is a {found}, but --model says {config.model}. Give --model {found}, or another "
            f"checkpoint."
        )
    start_model(config, init)
