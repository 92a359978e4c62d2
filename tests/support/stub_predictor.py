"""A predictor that costs nothing, for benchmarks: its masks are there, packed into bits, as they come from a GPU."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.inference.answers import Answer, Compressed, Masks
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor_spec import PredictorSpec
from sgmg.masks import masks_to_bits

QUERIES = 5


@dataclass(frozen=True)
class StubSpec(PredictorSpec):
    """Makes a stub instead of a model, which takes some seconds a frame."""

    seconds: float = 0.0

    def predictor(self) -> Any:
        """The stub."""
        return Stub(self.seconds)


class Stub:
    """Answers every expression with the same masks, a disk that moves, after the time that a model would take."""

    fingerprint = "f"

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._bits: dict[tuple[int, int, int, int], np.ndarray] = {}

    def answer(self, frames: ModelFrames) -> list[Answer]:
        """Copies the frames, as they would go to a GPU, and compresses masks, as they would come from it."""
        record, t = frames.record, len(frames.numbers)
        time.sleep(self._seconds * t)
        frames.frames.copy()
        size, original = frames.frames.shape[1:3], (record.original_height, record.original_width)
        queries = QUERIES if frames.one_of_many else 1
        return [
            Answer(
                number=number,
                frames=frames.numbers,
                masks=Masks(original, (Compressed.of(self._masks(1, t, *original)),)),
                scores=((0.9,) * t,) * queries,
                boxes=(((1.0, 1.0, 2.0, 2.0),) * t,) * queries,
                coarse=Masks(size, (Compressed.of(self._masks(QUERIES, t, *size)),)) if frames.one_of_many else None,
            )
            for number in range(len(record.expressions))
        ]

    def _masks(self, k: int, t: int, height: int, width: int) -> np.ndarray:
        if (k, t, height, width) not in self._bits:
            y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
            disks = [
                ((y - 0.4) ** 2 + (x - 0.3 - 0.01 * place) ** 2) < 0.03 + np.sin(40 * x) / 200 for place in range(t)
            ]
            self._bits[k, t, height, width] = masks_to_bits(np.stack([np.stack(disks)] * k))
        return self._bits[k, t, height, width]
