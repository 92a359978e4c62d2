from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from sgmg.resize import resize_frames, resized_size


def rule_r(height: int, width: int, short_side: int, cap: int | None) -> tuple[int, int]:
    """Rule R of spec 8, word by word, in fractions."""
    shorter, longer = sorted((height, width))
    if cap is not None and Fraction(longer, shorter) * short_side > cap:
        short_side = round(Fraction(cap * shorter, longer))
    if shorter == short_side:
        return height, width
    other = int(short_side * Fraction(longer, shorter))
    return (short_side, other) if height < width else (other, short_side)


@pytest.mark.parametrize("cap", [None, 640])
def test_sizes_follow_the_rule(cap: int | None) -> None:
    random = np.random.default_rng(0)
    for height, width in random.integers(20, 2000, (300, 2)).tolist():
        assert resized_size(height, width, 360, cap) == rule_r(height, width, 360, cap), (height, width)


@pytest.mark.parametrize(
    ("size", "cap", "expected"),
    [
        pytest.param((854, 480), None, (640, 360), id="upright, its longer side truncated from 640.5"),
        pytest.param((500, 500), None, (360, 360), id="square"),
        pytest.param((360, 5000), None, (360, 5000), id="already as short as asked, however long"),
        pytest.param((360, 640), 640, (360, 640), id="exactly at the cap"),
        pytest.param((5, 256), 100, (2, 102), id="1.95 rounded up, then the longer side may pass the cap"),
        pytest.param((5, 200), 100, (2, 80), id="2.5 rounded half to even, down"),
        pytest.param((7, 200), 100, (4, 114), id="3.5 rounded half to even, up"),
    ],
)
def test_a_frame_gets_the_size(size: tuple[int, int], cap: int | None, expected: tuple[int, int]) -> None:
    assert resized_size(*size, 360, cap) == expected


def test_frames_are_resized_as_pillow_does_it() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    resized = resize_frames(frames, 9, 13)
    for frame, small in zip(frames, resized, strict=True):
        np.testing.assert_array_equal(
            small, np.asarray(Image.fromarray(frame).resize((13, 9), Image.Resampling.BILINEAR))
        )


def test_frames_of_the_right_size_are_not_touched() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), dtype=np.uint8)
    assert resize_frames(frames, 5, 6) is frames
