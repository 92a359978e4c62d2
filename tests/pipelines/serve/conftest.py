"""A predictor of random weights, and windows for it."""

from collections.abc import Callable

import numpy as np
import pytest

from annotate_data import moving
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import InferenceProtocol
from pipelines.records import Expression, Record
from prepared_data import SENTENCES, tiny_model
from sgmg.tokenizer import Tokenizer

MakeWindow = Callable[..., ModelFrames]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A predictor of random weights on the CPU."""
    return Predictor(tiny_model(0), Tokenizer.train(SENTENCES), InferenceProtocol(short_side=40), device="cpu")


@pytest.fixture
def window() -> MakeWindow:
    """Makes a window of a video, of which sentences are asked."""

    def make(seed: int, *sentences: str, frames: int = 2, height: int = 40, width: int = 56) -> ModelFrames:
        record = Record(
            dataset="videos", split="", video=f"v{seed}", width=width, height=height,
            frame_names=tuple(f"{t:05d}" for t in range(frames)), frames=(b"",) * frames, objects=(),
            expressions=tuple(Expression(f"{number}", text) for number, text in enumerate(sentences)),
            source="", source_fingerprint="", original_width=width, original_height=height,
        )  # fmt: skip
        pixels = np.stack(list(moving(seed, frames, height, width)))
        return ModelFrames(record, tuple(range(frames)), pixels)

    return make
