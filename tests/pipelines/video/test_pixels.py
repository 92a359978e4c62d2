"""Frames as a person sees them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from jaxtyping import UInt8

from pipelines.video.pixels import orientation_of, over_black, square_size, turned

RNG = np.random.default_rng(0)
MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "nothing said": ((0, 0, 0, 0), lambda image: image),
    "a quarter left": ((0, -1, 1, 0), np.rot90),
    "a half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "a quarter right": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
}


def _tagged(path: Path, numbers: tuple[int, int, int, int]) -> av.VideoFrame:
    """The first frame of a copy of a video whose header asks for this display matrix."""
    data = path.read_bytes()
    head = data.index(b"tkhd")
    a, b, c, d = (number << 16 for number in numbers)
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data[: head + 44] + matrix + data[head + 44 + len(matrix) :])
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("name", MATRICES)
def test_a_frame_is_turned_and_mirrored_as_its_file_asks(name: str, make_video: Callable[..., Path]) -> None:
    numbers, expected = MATRICES[name]
    image = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    frame = _tagged(make_video("a.mp4", [image]), numbers)
    assert np.array_equal(turned(image, orientation_of(frame)), expected(image))


def test_a_slanted_frame_is_refused(make_video: Callable[..., Path]) -> None:
    frame = _tagged(make_video("a.mp4", [np.zeros((24, 32, 3), np.uint8)]), (1, 1, -1, 1))
    with pytest.raises(ValueError, match="turned by"):
        orientation_of(frame)


def test_square_pixels_widen_or_heighten_but_never_shrink() -> None:
    assert square_size(640, 480, Fraction(16, 9)) == (1138, 480)
    assert square_size(100, 100, Fraction(1, 2)) == (100, 200)
    assert square_size(427, 241, Fraction(1)) == (427, 241)


@pytest.mark.parametrize(("size", "aspect"), [((0, 4), 1), ((20000, 20000), 1), ((64, 64), 1000)])
def test_sizes_that_no_video_has_are_refused(size: tuple[int, int], aspect: int) -> None:
    with pytest.raises(ValueError, match="pixels"):
        square_size(*size, aspect=Fraction(aspect))


def test_transparency_lies_over_black() -> None:
    image: UInt8[np.ndarray, "h w 4"] = np.array(
        [[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 51, 128]]], np.uint8
    )
    assert over_black(image).tolist() == [[[200, 100, 50], [0, 0, 0], [100, 50, 26]]]
