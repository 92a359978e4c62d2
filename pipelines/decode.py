"""Encoded images to pixels."""

import cv2
import numpy as np
from jaxtyping import UInt8

from sgmg.masks import Size

_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode_image(data: bytes, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB pixels of a JPEG or PNG of the given height and width. EXIF rotation is ignored: masks ignore it.

    Raises:
        ValueError: it is no image, or one of another size.
    """
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), _AS_STORED) if data else None
    if image is None:
        raise ValueError(f"{len(data)} bytes that begin with {data[:8]!r} are no image. Prepare the data again.")
    if image.shape[:2] != size:
        raise ValueError(
            f"The image has height, width {image.shape[:2]}, but its record says {size}. Prepare the data again."
        )
    return image
