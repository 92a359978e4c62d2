"""Encoded images, whole and broken."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images import ColouredMask, checked_size, decode_image, ids_of, object_map, object_rles
from pipelines.safety.limits import MAX_OBJECTS


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_size_ignores_how_exif_says_to_turn() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert checked_size(encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif)) == (30, 20)


def test_a_broken_image_is_said() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    for data, said in ((b"", "empty"), (b"hello", "no image"), (whole[: len(whole) // 2], "cut short")):
        with pytest.raises(ValueError, match=said):
            checked_size(data)


def test_ids_are_read_as_stored_and_not_as_coloured() -> None:
    ids = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([7] * 768)
    assert object_map(encoded(palette, "PNG")).tolist() == ids.tolist()
    with pytest.raises(ValueError, match="RGB"):
        object_map(encoded(Image.new("RGB", (2, 2)), "PNG"))


def test_a_real_jpeg_decodes_to_the_pixels_that_pillow_finds(data_kit: Path) -> None:
    path = data_kit / "vos" / "blackswan" / "JPEGImages" / "00000.jpg"
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(path.read_bytes(), (480, 854)), expected)


def test_a_grey_jpeg_has_three_equal_channels(data_kit: Path) -> None:
    path = min((data_kit / "vos" / "car-shadow" / "JPEGImages").iterdir())
    with Image.open(path) as image:
        assert image.mode == "L"
        pixels = decode_image(path.read_bytes(), (image.height, image.width))
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_png_and_red_stay_what_they_are() -> None:
    assert decode_image(encoded(Image.new("RGB", (3, 2), (250, 20, 10)), "PNG"), (2, 3))[0, 0].tolist() == [250, 20, 10]


def test_exif_does_not_turn_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode_image(encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif), (20, 30)).shape == (20, 30, 3)


def test_what_is_no_image_or_of_another_size_is_refused() -> None:
    for data in (b"", b"hello"):
        with pytest.raises(ValueError, match=r"are no image\. Prepare"):
            decode_image(data, (2, 3))
    with pytest.raises(ValueError, match=r"\(2, 3\), but its record says \(3, 2\)"):
        decode_image(encoded(Image.new("RGB", (3, 2)), "PNG"), (3, 2))


@pytest.mark.parametrize("side", [13_000, 10_000, 2**31 - 1])  # Pillow warns of some sizes, and refuses others itself
def test_a_size_beyond_the_limit_is_refused_by_the_header(side: int) -> None:
    data = bytearray(encoded(Image.new("L", (5, 5)), "PNG"))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    for read in (checked_size, object_map):
        with pytest.raises(ValueError, match="67108864"):
            read(bytes(data))


def test_another_size_than_that_of_the_frame_is_refused_by_the_header() -> None:
    data = encoded(Image.new("L", (5, 4)), "PNG")
    assert object_map(data, (4, 5)).shape == (4, 5)
    with pytest.raises(ValueError, match=r"the mask has height, width \(4, 5\), not \(5, 4\)"):
        object_map(data, (5, 4))


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 255), (np.uint16, 65535), (np.int32, 70_000)])
def test_ids_keep_the_smallest_type_that_holds_them(kind: type, value: int) -> None:
    ids = np.array([[0, value], [1, 0]], dtype=kind)
    found = object_map(encoded(Image.fromarray(ids), "TIFF" if kind is np.int32 else "PNG"))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, ids)
    assert ids_of(found) == [0, 1, value]


def test_black_and_white_and_few_bits_are_ids_too() -> None:
    ids = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    one_bit = Image.fromarray(ids * 255).convert("1")
    assert object_map(encoded(one_bit, "PNG")).tolist() == ids.tolist()
    assert object_map(encoded(one_bit, "PNG")).dtype == np.uint8


def test_a_map_of_noise_is_no_map_of_objects() -> None:
    ids = np.arange(MAX_OBJECTS + 2, dtype=np.uint16).reshape(2, -1)
    assert len(object_rles(ids % 100)) == 99
    with pytest.raises(ValueError, match=f"holds {MAX_OBJECTS + 1} object ids"):
        object_rles(ids)


def test_negative_ids_and_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="the mask holds -5"):
        object_map(encoded(Image.fromarray(np.array([[-5]], dtype=np.int32)), "TIFF"))
    with pytest.raises(ColouredMask, match="RGB"):
        object_map(encoded(Image.new("RGB", (2, 2)), "PNG"))
