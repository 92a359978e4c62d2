"""Encoded images, whole and broken."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images import checked_size, decode_image, object_map


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
