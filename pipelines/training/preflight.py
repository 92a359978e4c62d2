"""Checks before the first worker starts: the run's settings and data, its first weights, the cluster, the storage."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import ray

from pipelines.clips.stream import TrainData
from pipelines.config_io import CONFIG, from_plain
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.tracking.checkpoint_source import local_checkpoint, on_any_node
from pipelines.training.checkpoints import latest_checkpoint
from pipelines.training.cluster import Workers, check_storage, idle_gpus_warning, wait_for_resources
from pipelines.training.config import FROM_SINGLE_OBJECT, TrainConfig
from pipelines.training.initial_model import start_model
from pipelines.training.run_state import DATA, tokenizer_of
from sgmg.checkpoints import load

log = logging.getLogger(__name__)

RUNTIME_FIELDS = frozenset(
    {"storage", "name", "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "start_timeout",
     "max_failures", "prefetch", "checkpoint_every", "keep", "log_every", "log_samples", "model_name", "valid_every"}
)  # fmt: skip
"""Fields that may change when a run continues: they say how it is run, not what it computes."""


DURATION_FIELDS = frozenset({"epochs", "max_steps"})
"""Fields that may change as well if the learning rates do not depend on the end of the run."""


def check_same_settings(run: Folder, config: TrainConfig) -> None:
    """Checks that a run that has begun continues with the settings that it was started with.

    Raises:
        JobError: a setting that decides what is computed has changed.
    """
    stored = run.read_if_there(CONFIG)
    if stored is None or not latest_checkpoint(run):
        return
    try:
        before = from_plain(TrainConfig, json.loads(stored))
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
        changes = ", ".join(f"--{name.replace('_', '-')} {old} → {new}" for name, (old, new) in changed.items())
        raise JobError(
            f"The run {config.run_name!r} in {run.path()} was started with other settings: {changes}. Give the old "
            f"ones to go on, or another --name to start anew."
        )


def check_same_data(run: Folder, data: TrainData) -> None:
    """Checks that a run that has begun continues with the rows that it was started with: its position counts them.

    Raises:
        JobError: a folder was prepared again, and its rows have changed.
    """
    stored = run.read_if_there(DATA)
    recorded = json.loads(stored) if stored is not None and latest_checkpoint(run) else {}
    for folder, rows in _rows_of(data).items():
        if recorded.get(folder, rows) != rows:
            raise JobError(
                f"{folder} was prepared again since the run in {run.path()} was started, and holds other rows now: "
                f"nobody knows which of them were seen. Give another --name; --init {run.path()} takes the weights "
                f"along."
            )


def record_data(run: Folder, data: TrainData) -> None:
    """Writes the hashes of the rows that a run learns from, for `check_same_data`."""
    run.write(DATA, (json.dumps(_rows_of(data), indent=2) + "\n").encode())


def _rows_of(data: TrainData) -> dict[str, str]:
    """Returns a hash of each folder's rows, in their order, and of what they were made from."""
    hashes = {}
    for part in data.parts:
        rows = [part.manifest.source_fingerprint, part.manifest.config, *map(asdict, part.manifest.shards)]
        hashes[part.folder.uri] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return hashes


@dataclass(frozen=True, slots=True)
class Start:
    """First weights and tokenizer of a run.

    Attributes:
        init: a function that returns the local path of the checkpoint to start from, on any node; None if there is
            none, or the run has begun.
        tokenizer: the tokenizer as JSON.
        own_tokenizer: whether the tokenizer is saved with the model; that of roberta-base is not.
    """

    init: Callable[[], Path] | None
    tokenizer: str
    own_tokenizer: bool


def prepare_start(config: TrainConfig, run: Folder) -> Start:
    """Finds the first weights and the tokenizer of a run, and checks that they fit its model.

    Raises:
        JobError: `--init` does not exist, or holds another preset than `--model`.
        FileNotFoundError, ValueError: as `start_model`.
    """
    begun = latest_checkpoint(run) is not None
    if config.recipe == FROM_SINGLE_OBJECT and not config.init and not begun:
        raise JobError(
            f"--recipe {FROM_SINGLE_OBJECT} starts from a trained single-object checkpoint. Give it as --init, or take "
            f"--recipe multi-scratch."
        )
    init = local_checkpoint(config.init, config.storage) if config.init and not begun else None
    tokenizer, own = tokenizer_of(config, run, init)
    if not begun:
        _check_weights(config, init)
    return Start(on_any_node(config.init, config.storage, init) if init else None, tokenizer.to_json(), own)


def _check_weights(config: TrainConfig, init: Path | None) -> None:
    if init and (preset := load(init).model.config.name) != config.model:
        raise JobError(
            f"--init {config.init} is a {preset}, but --model says {config.model}. Give --model {preset}, or another "
            f"checkpoint."
        )
    start_model(config, init)


def check_cluster(config: TrainConfig, run: Folder) -> None:
    """Waits until the cluster has room for the smallest number of workers, and checks that its nodes share the storage.

    Raises:
        JobError: the cluster can never give the resources, or did not in time; or the storage cannot be written, or
            some node sees another one.
    """
    workers = Workers(config.worker_range[0], config.worker_resources)
    wait_for_resources(config.min_resources, workers, f"--workers {config.workers}", config.start_timeout)
    if warning := idle_gpus_warning(config.gpus_per_worker, ray.cluster_resources()):
        log.warning("%s", warning)
    check_storage(run)
