"""Encoded images: checks, pixels, and maps of object ids; masks resized by nearest neighbour."""

import io

import cv2
import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, UnidentifiedImageError

from sgmg.masks import Size

_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def checked_size(data: bytes) -> tuple[int, int]:
    """Returns width and height of an encoded image after decoding all of it. Ignores EXIF rotation, as masks do.

    Raises:
        ValueError: the data are empty, not an image, or cut short.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.size
    except UnidentifiedImageError as error:
        raise ValueError("the file is no image") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image is damaged or cut short ({error})") from error


def object_map(data: bytes) -> Int[np.ndarray, "h w"]:
    """Returns the stored value of every pixel of a palette or grey PNG: its object id.

    Raises:
        ColouredMask: the image has colours.
        ValueError: the data are no image, or damaged.
    """
    checked_size(data)
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("P", "L", "I", "I;16", "1"):
            raise ColouredMask(f"the mask has colours ({image.mode}), but object ids need a palette or grey PNG")
        return np.asarray(image).astype(np.int64) // _grey_step(data)


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
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), _AS_STORED) if data else None
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
