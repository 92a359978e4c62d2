"""The second stage of bulk inference: an actor that holds the model."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import torch

from pipelines.errors import BadItem
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.quarantine import Failure
from pipelines.inference.unit_messages import open_decoded, predicted_parcel
from pipelines.predictions import Prediction

MAX_CRASHES = 4
"""Predictors that may die of one unit before it is left alone: else it would stop the run for ever."""
_DEADLY = (
    f"{MAX_CRASHES} predictors died of it, most likely for want of memory. Give them more: fewer --actors, a smaller "
    f"--short-side, or another machine."
)


class Predict:
    """Decoded units → predictions. An actor: loads the model once, holds nothing between units."""

    def __init__(self, recipe: PredictorSpec, attempts: Any) -> None:
        torch.set_num_threads(recipe.threads)
        self._attempts = attempts
        self._predictor = recipe.predictor()
        self._idle_since = time.monotonic()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row a unit, with its predictions as an Arrow table and what there is to count."""
        for row in range(len(batch)):
            started = time.monotonic()
            waited = started - self._idle_since
            unit, asked, failures = open_decoded(batch, row)
            died: Any = ray.get(self._attempts.begin.remote(unit))
            if died < MAX_CRASHES:
                predictions = self._predictions(asked, failures)
            else:
                predictions = []
                failures += [Failure(one.record.video, "predict", _DEADLY) for one in asked]
            ray.get(self._attempts.end.remote(unit))
            self._idle_since = time.monotonic()
            count = {
                "videos": len(asked),
                "frames": sum(len(one.record.frame_names) for one in asked),
                "expressions": len(predictions),
                "died": died,
                "waited": waited,
                "busy": self._idle_since - started,
            }
            yield predicted_parcel(unit, failures, predictions, count)

    def _predictions(self, asked: Sequence[ModelFrames], failures: list[Failure]) -> list[Prediction]:
        """Of what can be used; the rest is added to the failures."""
        predictions: list[Prediction] = []
        for one in asked:
            try:
                predictions += self._predictor.answer(one)
            except BadItem as error:
                failures.append(Failure(error.video, error.stage, error.reason))
        return predictions


class CrashCounter:
    """How often each unit was begun and not ended: its predictor died. One actor for all of a run."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, unit: str) -> int:
        """How many predictors died of it so far."""
        self._begun[unit] += 1
        return self._begun[unit] - 1

    def end(self, unit: str) -> None:
        """It is well: done again for another reason, it counts from 0."""
        del self._begun[unit]
