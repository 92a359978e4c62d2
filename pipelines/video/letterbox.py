"""Frames of another size than the first frame of their video: shown whole, between black bars, at the first one's size.

A video has one size for all its masks, so a change of size in its middle would otherwise stretch what is seen.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from sgmg.masks import Size


class Place(NamedTuple):
    """Place of a picture within another, in pixels."""

    x: int
    y: int
    width: int
    height: int


def fitted(size: Size, within: Size) -> Place:
    """Returns the largest place in the middle of `within` that has the shape of `size`; both are (height, width).

    >>> fitted((240, 426), (480, 640))
    Place(x=0, y=59, width=640, height=361)
    """
    scale = min(within[0] / size[0], within[1] / size[1])
    height, width = (max(1, min(limit, round(side * scale))) for side, limit in zip(size, within, strict=True))
    return Place((within[1] - width) // 2, (within[0] - height) // 2, width, height)


def letterboxed(image: UInt8[np.ndarray, "h w 3"], size: Size) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Returns an image of the size that `fitted` gives, in the middle of a black one of `size`."""
    whole = np.zeros((*size, 3), np.uint8)
    x, y, width, height = fitted((image.shape[0], image.shape[1]), size)
    whole[y : y + height, x : x + width] = image
    return whole


def size_remark(size: Size, first: Size) -> str:
    """Returns what became of frames of a size, where the first frame has another one."""
    x, y, width, height = fitted(size, first)
    return (
        f"frames of {size[1]} x {size[0]} pixels follow frames of {first[1]} x {first[0]}: they are a shot of their "
        f"own, shown as {width} x {height} at x {x}, y {y} between black bars"
    )
