import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.exports.pngs import decode_mask, decode_object_map, encode_mask, encode_object_map
from pipelines.images import voc_palette


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def saved(pixels: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 3), (5, 4), (7, 5), (6, 127), (48, 85)])
def test_a_mask_is_read_as_mode_l_with_0_and_255(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) < 0.5
    data = encode_mask(mask)
    assert opened(data).mode == "L"
    expected = mask * np.uint8(255)
    np.testing.assert_array_equal(np.asarray(opened(data)), expected)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), expected)
    np.testing.assert_array_equal(decode_mask(data, size), mask)


def test_a_mask_takes_less_room_than_pillow_gives_it_at_best(data_kit: Path) -> None:
    for name in ("blackswan", "bmx-trees"):
        path = sorted((data_kit / "vos" / name / "Annotations").glob("*.png"))[0]
        mask = np.asarray(Image.open(path)) > 0
        best = io.BytesIO()
        Image.fromarray(mask * np.uint8(255)).save(best, "PNG", optimize=True)
        assert len(encode_mask(mask)) < 0.9 * len(best.getvalue())


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 15, 16, 20, 255])
def test_an_object_map_keeps_its_ids_in_mode_p_with_the_colours_of_davis(most: int) -> None:
    ids = np.random.default_rng(0).integers(0, most + 1, (7, 13))
    ids[0, 0] = most
    image = opened(encode_object_map(ids))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), ids)
    assert bytes(image.getpalette() or [])[: 3 * (most + 1)] == voc_palette(most + 1)
    np.testing.assert_array_equal(decode_object_map(encode_object_map(ids)), ids)


def test_the_colours_are_those_of_the_official_results(data_kit: Path) -> None:
    path = next((data_kit / "results" / "davis_eval" / "semi-supervised").rglob("*.png"))
    palette = bytes(Image.open(path).getpalette() or [])
    assert palette
    assert voc_palette()[: len(palette)] == palette


def test_ids_that_do_not_fit_into_the_bits_that_are_wished_are_refused() -> None:
    with pytest.raises(ValueError, match=r"go from 1 to 20, but this palette PNG holds 0 … 15"):
        encode_object_map(np.array([[1, 20]]), bits=4)
    assert opened(encode_object_map(np.array([[1, 2]]), bits=8)).getpalette() == list(voc_palette(256))


@pytest.mark.parametrize("ids", [[[-1]], [[256]]])
def test_ids_beyond_a_byte_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"0 … 255"):
        encode_object_map(np.array(ids))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"GIF89a and so on", "no PNG"),
        (encode_mask(np.random.default_rng(0).random((4, 4)) < 0.5)[:-26], "damaged or cut short"),
        (saved(np.eye(4, dtype=bool)), "mode 1, but mode L"),
        (saved(np.zeros((4, 4, 3), np.uint8)), "mode RGB, but mode L"),
        (saved(np.full((4, 4), 1, np.uint8)), "the value 1, but only 0 and 255"),
        (encode_object_map(np.eye(4, dtype=int)), "mode P, but mode L"),
        (encode_mask(np.eye(5, dtype=bool)), r"height, width \(5, 5\), but \(4, 4\)"),
    ],
)
def test_what_is_no_mask_is_refused_and_why(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_mask(data, (4, 4))


def test_a_flipped_byte_is_noticed() -> None:
    data = bytearray(encode_mask(np.random.default_rng(0).random((40, 40)) < 0.5))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode_mask(bytes(data))
