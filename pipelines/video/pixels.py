"""Conversion of a decoded frame to its displayed form: upright, square pixels, 8-bit RGB, without transparency."""

from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

MAX_PIXELS = 2**26
"""Pixels of the largest frame that is decoded: 8K has 2**25; a broken header may demand all memory."""
MAX_STRETCH = 8
"""Largest ratio of width to height of a pixel, or of height to width; beyond it the file is wrong."""


def turned(image: UInt8[np.ndarray, "h w c"], orientation: str) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Returns the image rotated and mirrored according to `orientation_of`."""
    image = image.swapaxes(0, 1) if "t" in orientation else image
    return image[:: -1 if "y" in orientation else 1, :: -1 if "x" in orientation else 1]


def orientation_of(frame: av.VideoFrame) -> str:
    """Returns the orientation of a file's frames: `t` if x and y are swapped, then `x`, `y` if mirrored in x, in y.

    Call it for one frame per video: PyAV puts a frame whose side data was read into a reference cycle, and many such
    frames of megabytes each would wait for the garbage collector.

    Raises:
        ValueError: the file specifies something other than quarter turns and mirroring.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return ""
    matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
    (a, b), (c, d) = matrix[:2, :2].tolist()  # x' = a x + c y, y' = b x + d y
    if not b and not c:  # an all-zero matrix, which some encoders write, means no rotation
        return "x" * (a < 0) + "y" * (d < 0)
    if not a and not d:
        return "t" + "x" * (c < 0) + "y" * (b < 0)
    raise ValueError(f"its frames are turned by {frame.rotation} degrees. Encode it again without rotation.")


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Returns the size at which pixels with this aspect ratio become square; one side grows, none shrinks.

    >>> square_size(720, 576, Fraction(16, 15))
    (768, 576)

    Raises:
        ValueError: the size or the aspect ratio is impossible, or the frame is too large to decode.
    """
    if not width or not height or width * height > MAX_PIXELS:
        raise ValueError(f"its frames are {width} x {height} pixels; 1 x 1 to {MAX_PIXELS} in all can be decoded")
    if not Fraction(1, MAX_STRETCH) <= aspect <= MAX_STRETCH:
        raise ValueError(f"its pixels are {aspect} as wide as high. Encode it again with square pixels.")
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def rgb(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Converts a frame to RGB at width and height `size`, before rotation; transparent pixels are laid over black."""
    width, height = size
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_ndarray(format="rgb24", width=width, height=height)
    image = frame.to_ndarray(format="rgba", width=width, height=height)
    return over_black(image)


def over_black(image: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """Lays an RGBA image over black and rounds."""
    shown = image[..., :3].astype(np.uint16) * image[..., 3:] + 127
    return (shown // 255).astype(np.uint8)
