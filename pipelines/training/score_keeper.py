"""Scores of a run: when one is due, and whether they have stopped getting better."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.training.config import TrainConfig


@dataclass
class ScoreKeeper:
    """The scores of a run, of rank 0; the other ranks only ask when one is due.

    Args:
        config: of the run.
        per_epoch, steps: optimiser steps of an epoch and of the whole run.
        scores: by step, as far as the run has been scored; None where there was no score. Those of later steps than
            the run now is at are from before a restart: these steps are trained again, and do not count.
    """

    config: TrainConfig
    per_epoch: int
    steps: int
    scores: dict[int, float | None] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        """Returns whether the run is to be scored after this step."""
        if not step:
            return False
        if step == self.steps:
            return True
        if self.config.valid_every_steps:
            return step % self.config.valid_every_steps == 0
        epoch, rest = divmod(step, self.per_epoch)
        return not rest and epoch % self.config.valid_every == 0

    def has_stalled(self, step: int) -> bool:
        """Returns whether the last --patience scores up to a step brought no new best."""
        scores = self._until(step)
        if not self.config.patience or not scores:
            return False
        best = max(scores, key=lambda one: scores[one])  # of equal ones the first
        return sum(one > best for one in scores) >= self.config.patience

    def _until(self, step: int) -> Mapping[int, float]:
        return {one: self.scores[one] or 0.0 for one in sorted(self.scores) if one <= step and self._counts(one)}

    def _counts(self, step: int) -> bool:
        return self.scores[step] is not None
