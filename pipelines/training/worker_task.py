"""What a training worker is told, and the learning rate at each step of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.clips.stream import TrainData
from pipelines.files import Folder
from pipelines.tracking.mlflow_run import RunHandle
from pipelines.training.config import TrainConfig
from pipelines.training.run_state import steps_of
from pipelines.training.validation import Validation


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """All a worker is told. The same for all of them, and after every restart."""

    config: TrainConfig
    data: TrainData
    tokenizer: str  # its JSON
    own_tokenizer: bool  # it is saved with the model
    init: Callable[[], Path] | None  # finds the checkpoint to start from, on any node
    run: Folder  # the run's folder in the storage
    tracking: RunHandle
    spool: Path  # where metrics wait for MLflow
    ear: Any  # the progress actor
    validation: Validation | None

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run. It takes a plan, a tenth of a second for millions of sentences."""
        return steps_of(self.config, self.data.plan(0).steps)
