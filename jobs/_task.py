"""What a training worker is told, and the learning rate at each step of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs._standing import steps_of
from jobs._validation import Validation
from jobs.recipes import TrainConfig
from jobs.tracking import RunHandle
from pipelines.clips import TrainData
from pipelines.files import Folder


@dataclass(frozen=True, slots=True)
class Task:
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


def rate_factor(config: TrainConfig, step: int, steps: int, per_epoch: int) -> float:
    """What the rates are multiplied by at an optimiser step, besides the factor of the batch."""
    if config.schedule == "drops":
        return 0.1 ** sum(step // per_epoch >= drop for drop in config.drops)
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
