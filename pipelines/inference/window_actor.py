"""The third stage of annotation: an actor that holds the model."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
import torch

from pipelines.errors import BadItem
from pipelines.inference.actor import MAX_CRASHES
from pipelines.inference.messages import NEWS, WINDOW, found_parcel, open_parcel, parcel, window_of
from pipelines.inference.predictor import Predictor
from pipelines.inference.predictor_spec import PredictorSpec

_DEADLY = (
    f"{MAX_CRASHES} predictors died of it, most likely for want of memory. Give them more: fewer --actors, a smaller "
    f"--short-side or --window, or another machine."
)


class Annotate:
    """Windows → what every query says in them. An actor: loads the model once, holds nothing between windows.

    It loads it for its first window: a run that finds all done is over in seconds.
    """

    def __init__(self, recipe: PredictorSpec, attempts: Any) -> None:
        torch.set_num_threads(recipe.threads)
        self._recipe, self._attempts = recipe, attempts
        self._idle_since = time.monotonic()

    @cached_property
    def predictor(self) -> Predictor:
        """The model."""
        loaded = self._recipe.predictor()
        self._idle_since = time.monotonic()
        return loaded

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a window, or a piece of news where it could not be done; other news pass through."""
        for row in range(len(batch)):
            kind, about, data = open_parcel(batch, row)
            yield self._found(about, data) if kind == WINDOW else parcel(kind, about, data)

    def _found(self, about: dict[str, Any], data: memoryview) -> pa.Table:
        predictor = self.predictor
        started = time.monotonic()
        asked = window_of(about, data)
        record = asked.record
        unit = f"{record.video} {record.segment}"
        died: int = ray.get(self._attempts.begin.remote(unit))
        news = {"news": "window", "video": record.video, "window": record.segment, "died": died}
        try:
            if died >= MAX_CRASHES:
                raise BadItem(record.source, "predict", _DEADLY)
            predictions = [
                replace(one, note=about["damage"], status="partial") if about["damage"] else replace(one, note="")
                for one in predictor.answer(asked)
            ]
        except BadItem as error:
            where = f"{(record.timestamps or (0,))[0]:.2f} to {(record.timestamps or (0,))[-1]:.2f} s: {error.reason}"
            predictions, news = [], {**news, "failure": {"stage": error.stage, "reason": where}}
        ray.get(self._attempts.end.remote(unit))
        waited, self._idle_since = started - self._idle_since, time.monotonic()
        news |= {"frames": len(record.frame_names), "waited": waited, "busy": self._idle_since - started}
        if not predictions:
            return parcel(NEWS, news)
        return found_parcel(predictions, {"news": news, "batches": about["batches"]})
