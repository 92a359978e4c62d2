"""Encoded images: checks, pixels, and maps of object ids; masks resized by nearest neighbour."""

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import IO

import cv2
import numpy as np
from jaxtyping import Bool, Int, Integer, UInt8
from PIL import Image, UnidentifiedImageError

from pipelines.safety.limits import MAX_OBJECTS, MAX_PIXELS
from sgmg.masks import Size, mask_to_rle

_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_DAMAGE = (
    OSError, EOFError, SyntaxError, AttributeError, LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip
"""Errors that Pillow raises for damaged bytes."""


def checked_size(data: bytes) -> tuple[int, int]:
    """Returns width and height of an encoded image after decoding all of it. Ignores EXIF rotation, as masks do.

    Raises:
        ValueError: the data are empty, not an image, cut short, or of more than `limits.MAX_PIXELS`.
    """
    with opened_image(data) as image:
        image.load()
        return image.size


@contextmanager
def opened_image(data: bytes | IO[bytes], formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Opens an encoded image of which only the header is read so far, and checks the size in it.

    Args:
        data: the bytes of the file, or the open file.
        formats: of Pillow that may be read; None: all.

    Raises:
        ValueError: the data are empty or no image, or have more than `limits.MAX_PIXELS`; or Pillow finds damage, here
            or inside the block.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"the image is {image.width} x {image.height} pixels, more than {MAX_PIXELS} in all")
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"the file is no {' or '.join(formats) if formats else 'image'}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"the image is larger than {MAX_PIXELS} pixels") from error
    except _DAMAGE as error:
        raise ValueError(f"the image is damaged or cut short ({error})") from error


def object_map(data: bytes, size: Size | None = None) -> Integer[np.ndarray, "h w"]:
    """Returns the stored value of every pixel of a palette or grey PNG, its object id, in the smallest type that fits.

    Args:
        data: the PNG.
        size: required height and width; None allows any. It is checked before a pixel is decoded.

    Raises:
        ColouredMask: the image has colours.
        ValueError: the data are no image, damaged, too large or of another size, or a pixel is negative.
    """
    with opened_image(data) as image:
        if image.mode not in ("P", "L", "I", "I;16", "1"):
            raise ColouredMask(f"the mask has colours ({image.mode}), but object ids need a palette or grey PNG")
        found = (image.height, image.width)
        if size is not None and found != size:
            raise ValueError(f"the mask has height, width {found}, not {size}")
        pixels = np.asarray(image)
    if pixels.dtype.kind == "i" and pixels.min(initial=0) < 0:
        raise ValueError(f"the mask holds {pixels.min()}, but object ids are whole numbers from 0")
    pixels = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
    step = _grey_step(data)
    return pixels // pixels.dtype.type(step) if step > 1 else pixels


def ids_of(ids: Integer[np.ndarray, "h w"]) -> list[int]:
    """Returns the object ids of a map, sorted, row by row: in no more memory than the map itself.

    >>> ids_of(np.array([[3, 0], [0, 300]], dtype=np.uint16))
    [0, 3, 300]
    """
    if ids.dtype.itemsize > 2:
        return np.unique(ids).tolist()
    held = np.zeros(2 ** (8 * ids.dtype.itemsize), dtype=np.bool_)
    for row in ids:
        held[row] = True
    return np.flatnonzero(held).tolist()


def object_rles(ids: Integer[np.ndarray, "h w"], without: Collection[int] = (0,)) -> dict[int, str]:
    """Returns the mask of every object of a map as RLE, by id.

    Raises:
        ValueError: there are more than `limits.MAX_OBJECTS`.
    """
    present = [one for one in ids_of(ids) if one not in without]
    if len(present) > MAX_OBJECTS:
        raise ValueError(f"the mask holds {len(present)} object ids, more than {MAX_OBJECTS}: it is no map of objects")
    return {one: mask_to_rle(ids == one) for one in present}


class ColouredMask(ValueError):
    """Error: a mask has colours instead of object ids."""


def white_of(data: bytes) -> int:
    """Returns what `object_map` gives for white: the largest value of a grey PNG, 255 with a palette."""
    bits = _grey_bits(data)
    return 2**bits - 1 if bits < 8 else 255


def _grey_step(data: bytes) -> int:
    """Returns by what Pillow multiplies the values of a grey PNG of 2 or 4 bits, to fill the range of eight; else 1."""
    bits = _grey_bits(data)
    return 255 // (2**bits - 1) if bits in (2, 4) else 1


def _grey_bits(data: bytes) -> int:
    """Returns the bits of a pixel of a grey PNG; 8 for any other image."""
    is_grey = data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[25] == 0
    return data[24] if is_grey else 8


def voc_palette(colours: int = 256) -> bytes:
    """Returns the RGB colours that PASCAL VOC and DAVIS use for ids 0, 1, …: the bits of an id, spread from the top.

    >>> voc_palette(3).hex(" ", 3)
    '000000 800000 008000'
    """
    table = bytearray()
    for id in range(colours):
        for channel in range(3):
            table.append(sum((id >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)))
    return bytes(table)


def decode_image(data: bytes, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a JPEG or PNG of the given height and width to RGB. Ignores EXIF rotation, as masks do.

    Raises:
        ValueError: the data are not an image, or the image has another size.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), _AS_STORED) if data else None
    except cv2.error:  # it is too large
        image = None
    if image is None:
        raise ValueError(f"{len(data)} bytes that begin with {data[:8]!r} are no image. Prepare the data again.")
    if image.shape[:2] != size:
        raise ValueError(
            f"The image has height, width {image.shape[:2]}, but its record says {size}. Prepare the data again."
        )
    return image


def nearest_pixels(source: int, size: int) -> Int[np.ndarray, " {size}"]:
    """Returns the source pixel of each target pixel by PyTorch's `nearest` rule: ⌊i · source / size⌋ in float32.

    Pillow's rule, which starts from the pixel centre, differs; the published masks are resized by PyTorch.

    >>> nearest_pixels(5, 3).tolist()
    [0, 1, 3]
    """
    scale = np.float32(source) / np.float32(size)
    return np.minimum((np.arange(size, dtype=np.float32) * scale).astype(np.intp), source - 1)


def nearest(masks: Bool[np.ndarray, "*stack _ _"], height: int, width: int) -> Bool[np.ndarray, "*stack h2 w2"]:
    """Resizes masks by nearest neighbour, as PyTorch's `nearest` does.

    >>> nearest(np.array([[True, False, False, True]]), 2, 2).tolist()
    [[True, False], [True, False]]
    """
    rows, columns = nearest_pixels(masks.shape[-2], height), nearest_pixels(masks.shape[-1], width)
    return masks[..., rows[:, None], columns]
