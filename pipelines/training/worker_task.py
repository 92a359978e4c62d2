"""The task of a training worker."""

from dataclasses import dataclass
from typing import Any

from pipelines.clips.stream import TrainData
from pipelines.files import Folder
from pipelines.tracking.run_handle import RunHandle
from pipelines.training.config import TrainConfig
from pipelines.training.preflight import Start
from pipelines.training.run_state import steps_of
from pipelines.training.validation import Validation


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """Everything that a worker needs to know. The same for all workers, and after every restart.

    Attributes:
        data: prepared folders and the plan of the steps.
        start: first weights and tokenizer.
        run: the run's folder in the storage.
        spool: folder in which metrics wait for MLflow.
        progress: handle of the `ProgressActor`.
        validation: rows to score; None if the run scores nothing.
    """

    config: TrainConfig
    data: TrainData
    start: Start
    run: Folder
    tracking: RunHandle
    spool: Folder
    progress: Any
    validation: Validation | None

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return steps_of(self.config, self.data.plan(0).steps)
