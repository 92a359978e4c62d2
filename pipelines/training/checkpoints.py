"""Checkpoints of a run: copied to host memory, written while training continues, found again after any kill."""

import json
import logging
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from pyarrow import fs
from ray.train import Checkpoint
from torch import Tensor

from pipelines.files import Folder, upload_files
from sgmg.checkpoints import CONFIG, MODEL, TRAINING, save
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer
from sgmg.weight_average import WeightAverage

log = logging.getLogger(__name__)

PREFIX = "step_"
RAY_STATE = "checkpoint_manager_snapshot.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of a run at one step, copied to host memory, so that training may continue while it is written."""

    model: SgMg  # for its config; the weights below are what is written
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any]
    tokenizer: Tokenizer | None
    notes: Mapping[str, Any]
    averaged: Mapping[str, Tensor] | None = None

    @classmethod
    def of(
        cls,
        model: SgMg,
        training: Mapping[str, Any],
        tokenizer: Tokenizer | None,
        notes: Mapping[str, Any],
        average: WeightAverage | None = None,
    ) -> "Snapshot":
        """Copies the state; training waits for this only."""
        averaged = None if average is None else _copied(average.state_dict())
        return cls(model, _copied(dict(model.state_dict())), _copied(dict(training)), tokenizer, notes, averaged)

    def write(self, folder: Path) -> None:
        """Writes the checkpoint as a folder, whole or not at all.

        Raises:
            OSError: the disk is full, or permission is denied; an earlier checkpoint of that name is unchanged.
        """
        save(
            folder, self.model, weights=self.weights, averaged=self.averaged, tokenizer=self.tokenizer,
            training=self.training, notes=self.notes,
        )  # fmt: skip

    def upload(self, filesystem: fs.FileSystem, path: str) -> Checkpoint:
        """Writes the checkpoint to the filesystem of Ray Train's storage."""
        if isinstance(filesystem, fs.LocalFileSystem):
            self.write(Path(path))
        else:
            with tempfile.TemporaryDirectory(prefix="sgmg-checkpoint-") as staging:
                self.write(Path(staging) / "checkpoint")
                # config.json last: without it a folder is no checkpoint.
                names = sorted((Path(staging) / "checkpoint").iterdir(), key=lambda file: file.name == CONFIG)
                upload_files(names, filesystem, path)
        return Checkpoint(path, filesystem)


class SnapshotWrites:
    """The writes of a worker's snapshots, one at a time: until it is written, a snapshot takes as much memory again."""

    def __init__(self) -> None:
        self._ended: threading.Event | None = None

    def next(self) -> threading.Event:
        """Waits until the write before has ended. Returns the event that the next one has to set at its end."""
        self.wait()
        self._ended = threading.Event()
        return self._ended

    def wait(self) -> None:
        """Waits until the last write has ended."""
        if self._ended is not None:
            self._ended.wait()


def upload_async(snapshot: Snapshot, progress: Any, ended: threading.Event, _: Checkpoint, name: str) -> Checkpoint:
    """Writes a snapshot to Ray Train's storage; Ray Train calls this in a thread of the worker. Sets `ended`.

    Raises:
        OSError: the snapshot cannot be written. On a local disk, where a restart would not help, the progress actor is
            asked to stop the run.
    """
    storage: Any = ray.train.get_context().get_storage()
    try:
        return snapshot.upload(storage.storage_filesystem, f"{storage.experiment_fs_path}/{name}")
    except OSError as error:
        if isinstance(storage.storage_filesystem, fs.LocalFileSystem):  # a network gets better, a full disk does not
            ray.get(progress.request_stop.remote(str(error)))
        raise
    finally:
        ended.set()


def step_name(step: int) -> str:
    """Returns the name of the checkpoint's folder after a number of steps; names sort as the steps do."""
    return f"{PREFIX}{step:08d}"


def step_of(name: str) -> int:
    """Returns the number of steps in a name from `step_name`."""
    return int(name.removeprefix(PREFIX))


def latest_checkpoint(run: Folder) -> str | None:
    """Returns the name of the newest whole checkpoint in a run's folder; None if there is none.

    After a kill, Ray Train's own list may lack it.
    """
    found = [name for name in run.names() if name.startswith(PREFIX) and _is_whole(run, name)]
    return max(found, default=None)


def fetch_checkpoint(run: Folder, name: str, staging: Path) -> Path:
    """Returns the local folder of a checkpoint: its own, or a copy in `staging` if the run is in an object store."""
    folder = run.folder(name)
    if run.is_local:
        return Path(folder.path())
    folder.download(staging / name)
    return staging / name


def repair_ray_state(run: Folder) -> None:
    """Removes Ray Train's list of checkpoints if a kill left it half written; the checkpoints themselves are whole."""
    state = run.read_if_there(RAY_STATE)
    if state is None:
        return
    try:
        listed = json.loads(state)
        names = [entry["checkpoint_dir_name"] for entry in listed.get("checkpoint_results", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        names = [""]
    if not all(name and _is_whole(run, name) for name in names):
        log.warning("%s is damaged or out of date: made anew from here on", run.path(RAY_STATE))
        run.remove(RAY_STATE)


def prune(run: Folder, keep: int) -> None:
    """Removes half-written checkpoints of a killed run, and whole ones except the newest `keep`.

    Ray Train does not know of a checkpoint written just before a kill. No other process may be writing.
    """
    half = [name for name in run.names(hidden=True) if name.startswith(f".{PREFIX}")]
    named = [name for name in run.names() if name.startswith(PREFIX)]
    whole = sorted(name for name in named if _is_whole(run, name))
    for name in [*half, *(set(named) - set(whole)), *whole[: max(0, len(whole) - keep)]]:
        run.remove_folder(name)


def _is_whole(run: Folder, name: str) -> bool:
    return all(run.has(f"{name}/{file}") for file in (CONFIG, MODEL, TRAINING))


def _copied(value: Any) -> Any:
    """Returns the value with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
