from collections.abc import Callable

import pytest
import torch

from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor import Predictor
from pipelines.serve.shared_forward import SMALL_FRAMES, SharedForward

MakeWindow = Callable[..., ModelFrames]


def test_only_small_clips_of_one_shape_share(predictor: Predictor, window: MakeWindow) -> None:
    shared = SharedForward(predictor)
    first = window(1)
    assert shared.fits(first, window(2, "a dog"))
    assert not shared.fits(first, window(2, frames=3))
    assert not shared.fits(first, window(2, width=64))
    large = window(1, frames=SMALL_FRAMES + 1)
    assert not shared.fits(large, large)


@pytest.mark.parametrize("exact", [True, False])
def test_clips_go_together_only_where_a_trial_gave_equal_bits(
    predictor: Predictor, window: MakeWindow, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    passes: list[int] = []
    encode = predictor.encode

    def rounded(clips: list[ModelFrames]) -> list[object]:
        passes.append(len(clips))
        alone = [clip for one in clips for clip in encode([one])]
        if len(clips) > 1 and not exact:
            alone[1].video.levels[0].add_(1e-7)
        return list(alone)

    monkeypatch.setattr(predictor, "encode", rounded)
    shared, windows = SharedForward(predictor), [window(1), window(2)]
    for _ in range(2):
        for clip, one in zip(shared.encode(windows), windows, strict=True):
            assert torch.equal(clip.video.levels[0], encode([one])[0].video.levels[0])
    assert passes == ([2, 1, 1, 2] if exact else [2, 1, 1, 1, 1])
    assert shared.fits(windows[0], windows[1]) == exact
