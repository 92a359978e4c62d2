"""Resizing of decoded frames, for training and inference. It needs no torch: workers that only decode do without."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resized_size(height: int, width: int, short_side: int, long_side: int | None = None) -> tuple[int, int]:
    """Returns (height, width) after resizing the shorter side to `short_side`, or less to keep within `long_side`.

    Sizes are truncated, not rounded (rule R of spec 8).

    >>> resized_size(480, 854, 360), resized_size(1080, 1920, 360, 640), resized_size(100, 400, 360, 640)
    ((360, 640), (360, 640), (160, 640))
    """
    shorter, longer = min(height, width), max(height, width)
    if long_side is not None and longer * short_side > long_side * shorter:
        short_side = round(long_side * shorter / longer)
    if shorter == short_side:
        return height, width
    other = short_side * longer // shorter
    return (short_side, other) if height <= width else (other, short_side)


def resize_frames(frames: UInt8[np.ndarray, "t h w 3"], height: int, width: int) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Resizes frames with Pillow's antialiased bilinear filter, as the published preprocessing does."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([np.asarray(pillow_resized(Image.fromarray(frame), height, width)) for frame in frames])


def pillow_resized(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resizes all rows, then all columns, rounding in between, as Pillow before version 13 did.

    Newer versions start with the columns of some tall images, and differ from the published numbers by a rounding.
    """
    rows = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return rows.resize((width, height), Image.Resampling.BILINEAR)
