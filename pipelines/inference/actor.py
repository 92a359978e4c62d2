"""The stage of bulk inference that runs the model: an actor on a GPU, or on some cores."""

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
import torch

from pipelines.errors import BadItem, Failure
from pipelines.inference.answers import Answer
from pipelines.inference.messages import AnswersHeader, FramesHeader, decode, decode_frames, encode_answers
from pipelines.inference.predictor import Predictor
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.records import Record

MAX_CRASHES = 4
"""Predictors that may crash on one unit before it is skipped; otherwise it would stop the run for ever."""
_CRASHED = (
    f"{MAX_CRASHES} predictors crashed on it, most likely because memory ran out. Give each more memory: fewer "
    f"--actors, a smaller --short-side or --window, or another machine."
)


class PredictStage:
    """An actor that turns decoded frames into answers. It holds the model, and nothing between two units.

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
        """Yields one message for each message: answers for decoded frames; others pass through unchanged."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, FramesHeader)
            yield batch.slice(row, 1) if header is None else self._predict(header, payload)

    def _predict(self, header: FramesHeader, payload: memoryview) -> pa.Table:
        if not header.frames:  # news only
            return encode_answers(self._done(header, "", {}, 0, 0.0, 0.0), [])
        predictor = self.predictor
        started = time.monotonic()
        crashes: int = ray.get(self._crash_counter.start.remote(header.unit))
        answers: list[list[Answer]] = []
        failed: dict[int, list[Failure]] = {}
        for index, one in enumerate(decode_frames(header, payload)):
            answers.append([])
            try:
                if crashes >= MAX_CRASHES:
                    raise BadItem(one.record.video, "predict", _CRASHED)
                answers[index] = predictor.answer(one)
                if refused := _refused(predictor, one.record):
                    failed[index] = refused
            except BadItem as error:
                failed[index] = [Failure(error.video, error.stage, error.reason)]
        ray.get(self._crash_counter.finish.remote(header.unit))
        waited, self._idle_since = started - self._idle_since, time.monotonic()
        busy = self._idle_since - started
        return encode_answers(self._done(header, predictor.fingerprint, failed, crashes, waited, busy), answers)

    @staticmethod
    def _done(
        header: FramesHeader,
        fingerprint: str,
        failed: dict[int, list[Failure]],
        crashes: int,
        waited: float,
        busy: float,
    ) -> AnswersHeader:
        return AnswersHeader(
            unit=header.unit,
            failures=header.failures,
            records=tuple(info.record for info in header.frames),
            failed=failed,
            fingerprint=fingerprint,
            crashes=crashes,
            waited=waited,
            busy=busy,
            context=header.context,
        )


def _refused(predictor: Predictor, record: Record) -> list[Failure]:
    """Returns a failure for each expression that cannot be asked; it does not cost the others their answers."""
    return [
        Failure(record.video, "predict", f"expression {record.expressions[number].id}: {reason}")
        for number, reason in predictor.refused(record).items()
    ]
