import numpy as np
import pytest

from pipelines.sources.label_studio_rle import brush_mask, unpack_rle
from tool_files import packed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(3, 4, 8, 16), (1, 2, 3, 4), (16, 16, 16, 16)])
def test_packed_bytes_come_back(seed: int, sizes: tuple[int, ...]) -> None:
    draw = np.random.default_rng(seed)
    words = np.repeat(draw.integers(0, 256, 40), draw.integers(1, 30, 40)).tolist()
    assert unpack_rle(packed(words, sizes), len(words)).tolist() == words


def test_a_pixel_of_more_than_half_alpha_is_object() -> None:
    alpha = np.array([[0, 127, 128], [255, 1, 200]])
    image = np.full((2, 3, 4), 9)
    image[..., 3] = alpha
    np.testing.assert_array_equal(brush_mask(packed(image.ravel().tolist()), (2, 3)), alpha > 127)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "cut short"),
        ([0, 0, 0, 3, 57, 27, 252], "cut short"),
        ([0, 0, 0, 3, 57, 27, 252, 95], "cut short"),
        ([0, 0, 0, 9, 57, 27, 252, 95, 224], "holds 9 values of 8 bits, but its image has 3 of 8"),
        ([0, 0, 0, 3, 57, 27, 252, 127, 224], "holds more than 3 values"),
        ([0, 0, 0, 300], "no list of bytes"),
        (["a"], "no list of bytes"),
        (packed([1, 2, 3])[:-2], "cut short"),
    ],
)
def test_damaged_bytes_are_refused(rle: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_rle(rle, 3)
