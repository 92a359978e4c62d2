"""The stage of bulk inference that runs the model: an actor on a GPU, or on some cores."""

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
import torch

from pipelines.errors import BadItem, Failure
from pipelines.inference.messages import FramesHeader, PredictionsHeader, decode, decode_frames, encode_predictions
from pipelines.inference.predictor import Predictor
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.predictions import Prediction

MAX_CRASHES = 4
"""Predictors that may crash on one unit before it is skipped; otherwise it would stop the run for ever."""
_CRASHED = (
    f"{MAX_CRASHES} predictors crashed on it, most likely because memory ran out. Give each more memory: fewer "
    f"--actors, a smaller --short-side or --window, or another machine."
)


class PredictStage:
    """An actor that turns decoded frames into predictions. It holds the model, and nothing between two units.

    The model is loaded for the first unit: a run that has nothing left to do ends in seconds.

    Args:
        spec: of the predictor.
        crash_counter: handle of the run's `CrashCounter`.
    """

    def __init__(self, spec: PredictorSpec, crash_counter: Any) -> None:
        torch.set_num_threads(spec.threads)
        self._spec, self._crash_counter = spec, crash_counter
        self._idle_since = time.monotonic()

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor, loaded when it is first used."""
        predictor = self._spec.predictor()
        self._idle_since = time.monotonic()
        return predictor

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields one message for each message: predictions for decoded frames; others pass through unchanged."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, FramesHeader)
            yield batch.slice(row, 1) if header is None else self._predict(header, payload)

    def _predict(self, header: FramesHeader, payload: memoryview) -> pa.Table:
        if not header.frames:  # news only
            done = PredictionsHeader(header.unit, header.failures, (), {}, 0, 0, 0.0, 0.0, header.context)
            return encode_predictions(done, [])
        predictor = self.predictor
        started = time.monotonic()
        videos = decode_frames(header, payload)
        crashes: int = ray.get(self._crash_counter.start.remote(header.unit))
        predictions: list[Prediction] = []
        counts: list[int] = []
        failed: dict[int, Failure] = {}
        for index, one in enumerate(videos):
            before = len(predictions)
            try:
                if crashes >= MAX_CRASHES:
                    raise BadItem(one.record.video, "predict", _CRASHED)
                predictions += predictor.predict_frames(one)
            except BadItem as error:
                failed[index] = Failure(error.video, error.stage, error.reason)
            counts.append(len(predictions) - before)
        ray.get(self._crash_counter.finish.remote(header.unit))
        waited, self._idle_since = started - self._idle_since, time.monotonic()
        done = PredictionsHeader(
            unit=header.unit,
            failures=header.failures,
            counts=tuple(counts),
            failed=failed,
            frames=sum(len(one.record.frame_names) for one in videos),
            crashes=crashes,
            waited=waited,
            busy=self._idle_since - started,
            context=header.context,
        )
        return encode_predictions(done, predictions)
