"""A decoded frame as a person sees it: upright, square pixels, red green blue of 8 bits, nothing shining through."""

from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

MAX_PIXELS = 2**26
"""A frame larger than this is refused: 8K has 2**25, and a broken header may ask for all the memory there is."""
MAX_STRETCH = 8
"""Pixels this much wider than high, or higher than wide, are a mistake in the file."""


def turned(image: UInt8[np.ndarray, "h w c"], orientation: str) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The image turned and mirrored as `orientation_of` says."""
    image = image.swapaxes(0, 1) if "t" in orientation else image
    return image[:: -1 if "y" in orientation else 1, :: -1 if "x" in orientation else 1]


def orientation_of(frame: av.VideoFrame) -> str:
    """How a file wants its frames turned: `t` if x and y change places, then `x`, `y` if mirrored in x, in y.

    To be asked of one frame of a video: PyAV ties a frame whose side data was looked at into a cycle, and many such
    frames, each of megabytes, wait for the garbage collector.

    Raises:
        ValueError: it asks for something else than quarter turns and mirror images.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return ""
    matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
    (a, b), (c, d) = matrix[:2, :2].tolist()  # x' = a x + c y, y' = b x + d y
    if not b and not c:  # an all-zero matrix, which some writers leave, says nothing
        return "x" * (a < 0) + "y" * (d < 0)
    if not a and not d:
        return "t" + "x" * (c < 0) + "y" * (b < 0)
    raise ValueError(f"its frames are turned by {frame.rotation} degrees. Encode it again without rotation.")


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size that shows pixels of this width by height as squares; one side grows, none shrinks.

    >>> square_size(720, 576, Fraction(16, 15))
    (768, 576)

    Raises:
        ValueError: no such pixels exist, or the frame is too large to decode.
    """
    if not width or not height or width * height > MAX_PIXELS:
        raise ValueError(f"its frames are {width} x {height} pixels; 1 x 1 to {MAX_PIXELS} in all can be decoded")
    if not Fraction(1, MAX_STRETCH) <= aspect <= MAX_STRETCH:
        raise ValueError(f"its pixels are {aspect} as wide as high. Encode it again with square pixels.")
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def rgb(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green, blue at width and height `size`, not yet turned; what is transparent lies over black."""
    width, height = size
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_ndarray(format="rgb24", width=width, height=height)
    image = frame.to_ndarray(format="rgba", width=width, height=height)
    return over_black(image)


def over_black(image: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """Red, green, blue of an image that is laid over black, rounded."""
    shown = image[..., :3].astype(np.uint16) * image[..., 3:] + 127
    return (shown // 255).astype(np.uint8)
