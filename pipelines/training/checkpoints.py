"""Checkpoints of a run in progress: copied to host memory, written beside training, found again after any kill."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from pyarrow import fs
from ray.train import Checkpoint
from torch import Tensor

from pipelines.files import Folder
from sgmg.checkpoints import CONFIG, MODEL, TRAINING, save
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer

log = logging.getLogger(__name__)

PREFIX = "step_"
BEST = "best"
RAY_STATE = "checkpoint_manager_snapshot.json"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything of a run at one step, in host memory: training may go on while it is written."""

    model: SgMg  # for its config; the weights below are what is written
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any]
    tokenizer: Tokenizer | None
    notes: Mapping[str, Any]

    @classmethod
    def of(
        cls, model: SgMg, training: Mapping[str, Any], tokenizer: Tokenizer | None, notes: Mapping[str, Any]
    ) -> "Snapshot":
        """Copies, at once; this is all that training waits for."""
        return cls(model, _copied(dict(model.state_dict())), _copied(dict(training)), tokenizer, notes)

    def write(self, folder: Path) -> None:
        """The checkpoint as a folder, whole or not at all.

        Raises:
            OSError: there is no room, or no permission; what was there before is as it was.
        """
        save(
            folder, self.model, weights=self.weights, tokenizer=self.tokenizer, training=self.training, notes=self.notes
        )

    def upload(self, filesystem: fs.FileSystem, path: str) -> Checkpoint:
        """Written to where Ray Train keeps the run's checkpoints."""
        if isinstance(filesystem, fs.LocalFileSystem):
            self.write(Path(path))
        else:
            with tempfile.TemporaryDirectory(prefix="sgmg-checkpoint-") as aside:
                self.write(Path(aside) / "checkpoint")
                filesystem.create_dir(path, recursive=True)  # object storage needs none, others do
                # config.json last: without it a folder is no checkpoint.
                names = sorted((Path(aside) / "checkpoint").iterdir(), key=lambda file: file.name == CONFIG)
                for file in names:
                    fs.copy_files(str(file), f"{path}/{file.name}", destination_filesystem=filesystem)
        return Checkpoint(path, filesystem)


def upload_async(snapshot: Snapshot, ear: Any, _: Checkpoint, name: str) -> Checkpoint:
    """Writes a snapshot where Ray Train keeps the run's checkpoints; in a thread of a worker, beside the training.

    Raises:
        OSError: it cannot be written. Where trying again is no use, the progress actor `ear` has been told why.
    """
    storage: Any = ray.train.get_context().get_storage()
    try:
        return snapshot.upload(storage.storage_filesystem, f"{storage.experiment_fs_path}/{name}")
    except OSError as error:
        if isinstance(storage.storage_filesystem, fs.LocalFileSystem):  # a network gets better, a full disk does not
            ray.get(ear.stop.remote(str(error)))
        raise


def step_name(step: int) -> str:
    """The folder of the checkpoint after so many steps; sorts as the steps do."""
    return f"{PREFIX}{step:08d}"


def step_of(name: str) -> int:
    """The steps that `step_name` was given."""
    return int(name.removeprefix(PREFIX))


def latest_checkpoint(run: Folder) -> str | None:
    """The name of the newest whole checkpoint in a run's folder: Ray's own list may be older, if it was killed."""
    found = [name for name in run.names() if name.startswith(PREFIX) and _is_whole(run, name)]
    return max(found, default=None)


def fetch_checkpoint(run: Folder, name: str, aside: Path) -> Path:
    """A checkpoint of the run as a local folder: itself, or a copy in `aside`."""
    folder = run.folder(name)
    if run.is_local:
        return Path(folder.path())
    folder.download(aside / name)
    return aside / name


def repair_ray_state(run: Folder) -> None:
    """Removes Ray Train's list of checkpoints if a kill left it half written; the checkpoints themselves are whole."""
    if not run.has(RAY_STATE):
        return
    try:
        listed = json.loads(run.read(RAY_STATE))
        names = [entry["checkpoint_dir_name"] for entry in listed.get("checkpoint_results", [])]
    except (ValueError, KeyError, TypeError, AttributeError):
        names = [""]
    if not all(name and _is_whole(run, name) for name in names):
        log.warning("%s is damaged or out of date: made anew from here on", run.path(RAY_STATE))
        run.remove(RAY_STATE)


def prune(run: Folder, keep: int) -> None:
    """Removes what a killed run left behind: half-written checkpoints, and whole ones beyond the newest `keep`.

    Ray removes those it knows of; of one that was written just before a kill it does not. Nobody else may be writing.
    """
    half = [name for name in run.names() if name.startswith(f".{PREFIX}")]
    named = [name for name in run.names() if name.startswith(PREFIX)]
    whole = sorted(name for name in named if _is_whole(run, name))
    for name in [*half, *(set(named) - set(whole)), *whole[: max(0, len(whole) - keep)]]:
        run.remove_folder(name)


def _is_whole(run: Folder, name: str) -> bool:
    return all(run.has(f"{name}/{file}") for file in (CONFIG, MODEL, TRAINING))


def _copied(value: Any) -> Any:
    """The same with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
