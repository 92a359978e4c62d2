"""The best checkpoint of a run: written to the run's storage, replaced whole, found again after any kill."""

import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from pipelines.files import Folder
from pipelines.training.checkpoints import Snapshot, fetch_checkpoint, step_name
from sgmg.checkpoints import CONFIG

BEST, POINTER = "best", "best.json"
"""Folder of the best checkpoint, and the file in it that says which it is, where nothing can be renamed."""
_NOTE = "best"


@dataclass(frozen=True, slots=True)
class Best:
    """Facts about the best checkpoint.

    Attributes:
        step: optimiser steps after which it was scored.
        score: what it is compared by.
        scored_on: what it was scored on; scores on something else do not compare.
        id: another one for each checkpoint that was written as the best, also for one of the same step.
    """

    step: int
    score: float
    scored_on: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def folder(self) -> str:
        """Name of its folder in an object store, where a folder that is being read must not change."""
        return f"{step_name(self.step)}-{self.id[:8]}"


def write_best(run: Folder, snapshot: Snapshot, best: Best) -> None:
    """Writes the best checkpoint of a run in place of the one before; a kill at any moment leaves one of them whole.

    On a disk it is the folder `best`. In an object store, where nothing can be renamed, it is `best/step_…`, and
    `best/best.json` says which.

    Raises:
        OSError: it cannot be written.
    """
    if run.is_local:
        replace(snapshot, notes={**snapshot.notes, _NOTE: asdict(best)}).write(Path(run.path(BEST)))
        return
    snapshot.upload(run.filesystem, run.path(f"{BEST}/{best.folder}"))
    run.write(f"{BEST}/{POINTER}", (json.dumps(asdict(best)) + "\n").encode())
    for name in run.names(BEST):
        if name not in (POINTER, best.folder):
            run.remove_folder(f"{BEST}/{name}")


def read_best(run: Folder) -> Best | None:
    """Returns what is known of the best checkpoint in a run's storage; None if there is none."""
    text = run.read_if_there(f"{BEST}/{CONFIG if run.is_local else POINTER}")
    if text is None:
        return None
    found: dict[str, Any] = json.loads(text)
    return msgspec.convert(found["notes"][_NOTE] if run.is_local else found, Best)


def fetch_best(run: Folder, staging: Path) -> Path:
    """Returns the local folder of the best checkpoint, as `fetch_checkpoint` does.

    Raises:
        FileNotFoundError: there is none.
    """
    best = read_best(run)
    if best is None:
        raise FileNotFoundError(f"{run.path(BEST)} holds no checkpoint.")
    return fetch_checkpoint(run, BEST if run.is_local else f"{BEST}/{best.folder}", staging)
