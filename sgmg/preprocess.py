"""From decoded frames to what the model eats: resized, normalized, padded. Shared by training, inference, Segmenter."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

MIN_SIDE = 129
"""Fewest pixels a side: the filters convolve 3x3 cells at 1/64 without padding."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def resized_size(height: int, width: int, short_side: int, long_side: int | None = None) -> tuple[int, int]:
    """Height and width after resizing: shorter side `short_side`, or less where the longer would pass `long_side`.

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
    """Frames resized with Pillow's antialiased bilinear filter, as the published preprocessing does."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([np.asarray(pillow_resized(Image.fromarray(frame), height, width)) for frame in frames])


def pillow_resized(image: Image.Image, height: int, width: int) -> Image.Image:
    """Every row first, then every column, rounded between: the order of Pillow before version 13, which begins with the
    columns of some tall images and so is off by a rounding from the published numbers."""
    rows = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return rows.resize((width, height), Image.Resampling.BILINEAR)


def normalize(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "t 3 h w"]:
    """RGB bytes to floats of zero mean and unit deviation over ImageNet."""
    pixels = rearrange(torch.from_numpy(np.array(frames, order="C")), "t h w c -> t c h w").float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def pad_clips(
    clips: Sequence[Float[Tensor, "t 3 _ _"]], multiple: int, minimum: int = MIN_SIDE
) -> tuple[Float[Tensor, "b t 3 h w"], Bool[Tensor, "b h w"], Int[Tensor, "b 2"]]:
    """Joins clips of any size: zeros below and to the right, up to the largest sides rounded up to a multiple.

    Padding is seen by the network, so a clip gives other numbers beside a larger one than alone; evaluation joins
    clips of equal size only.

    Args:
        clips: normalized frames; as many in every clip.
        multiple: 32 in training and for A2D, JHMDB, RefCOCO; 16 for video inference (spec 1).
        minimum: fewest pixels a side, before rounding up.

    Returns:
        Frames, padding (True where padded), and sizes (height, width) before padding.

    Raises:
        ValueError: there is no clip, or they differ in length.
    """
    if not clips:
        raise ValueError("No clip was given; at least one is needed.")
    if len(lengths := {len(clip) for clip in clips}) > 1:
        raise ValueError(f"Clips of a batch need as many frames each, but these have {sorted(lengths)}. Batch equals.")
    sizes = torch.tensor([clip.shape[-2:] for clip in clips])
    height, width = (_round_up(max(side, minimum), multiple) for side in sizes.amax(dim=0).tolist())
    frames = torch.stack([F.pad(clip, (0, width - clip.shape[3], 0, height - clip.shape[2])) for clip in clips])
    padding = torch.ones(len(clips), height, width, dtype=torch.bool)
    for mask, (h, w) in zip(padding, sizes.tolist(), strict=True):
        mask[:h, :w] = False
    return frames, padding, sizes


def pad_to_minimum(
    frames: Float[Tensor, "b t 3 h w"], padding: Bool[Tensor, "b h w"], multiple: int
) -> tuple[Float[Tensor, "b t 3 h2 w2"], Bool[Tensor, "b h2 w2"]]:
    """Frames grown, below and to the right, to the fewest pixels the model takes; larger ones only to the multiple."""
    height, width = (_round_up(max(side, MIN_SIDE), multiple) for side in frames.shape[-2:])
    grow = (0, width - frames.shape[-1], 0, height - frames.shape[-2])
    return F.pad(frames, grow), F.pad(padding, grow, value=True)


def resize_padding(padding: Bool[Tensor, "b h w"], height: int, width: int) -> Bool[Tensor, "b {height} {width}"]:
    """The padding of a coarser level: nearest cell, as PyTorch's `nearest` rounds it (spec 3)."""
    return F.interpolate(padding[:, None].float(), (height, width), mode="nearest")[:, 0].bool()


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
