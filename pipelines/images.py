"""Encoded images: their size, whether they are whole, and maps of object ids."""

import io

import numpy as np
from jaxtyping import Int
from PIL import Image, UnidentifiedImageError


def checked_size(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded image that decodes to its last row. EXIF rotation is ignored: masks ignore it.

    Raises:
        ValueError: it is empty, no image, or cut short.
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
    """The object id of every pixel of a palette or grey PNG, as it is stored.

    Raises:
        ValueError: it is no such image, or it is damaged.
    """
    checked_size(data)
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("P", "L", "I", "I;16", "1"):
            raise ValueError(f"the mask has colours ({image.mode}), but object ids need a palette or grey PNG")
        return np.asarray(image).astype(np.int64)
