"""Encoded images, whole and broken."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.images import checked_size, object_map


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
