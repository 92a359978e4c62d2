"""Normalization and padding of decoded frames, for training and inference."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

MIN_SIDE = 129
"""Minimum side in pixels: the filters convolve 3x3 cells at 1/64 without padding."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(frames: UInt8[np.ndarray, "t h w 3"], device: torch.device | str = "cpu") -> Float[Tensor, "t 3 h w"]:
    """Converts RGB bytes to floats, normalized by mean and standard deviation of ImageNet.

    The bytes go to the device, a quarter of what the floats would be, and are converted there.
    """
    on_gpu = torch.device(device).type == "cuda"
    copied = torch.empty(frames.shape, dtype=torch.uint8, pin_memory=on_gpu)
    copied.numpy()[...] = frames
    pixels = rearrange(copied.to(device, non_blocking=on_gpu), "t h w c -> t c h w").float() / 255
    mean, std = _statistics(torch.device(device))
    return (pixels - mean) / std


def normalize_clips(frames: UInt8[Tensor, "b t 3 h w"], padding: Bool[Tensor, "b h w"]) -> Float[Tensor, "b t 3 h w"]:
    """Does what `normalize` does on the device of the frames; zeros where padded."""
    mean, std = _statistics(frames.device)
    return ((frames.float() / 255 - mean) / std).masked_fill(padding[:, None, None], 0)


@lru_cache(maxsize=8)
def _statistics(device: torch.device) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    with torch.inference_mode(False):
        mean, std = (torch.from_numpy(np.array(values, dtype=np.float32)).to(device) for values in (MEAN, STD))
        return mean[:, None, None], std[:, None, None]


def pad_clips(
    clips: Sequence[Float[Tensor, "t 3 _ _"]], multiple: int, minimum: int = MIN_SIDE
) -> tuple[Float[Tensor, "b t 3 h w"], Bool[Tensor, "b h w"], Int[Tensor, "b 2"]]:
    """Stacks clips of any size, padded with zeros below and to the right to the largest sides, rounded up.

    The network sees the padding, so results of a clip depend on the size of the others; evaluation stacks clips of
    equal size only.

    Args:
        clips: normalized frames, the same number in every clip.
        multiple: sides are rounded up to a multiple of this: 32 in training and for A2D, JHMDB and RefCOCO, 16 for
            video inference (spec 1).
        minimum: minimum side in pixels, before rounding up.

    Returns:
        Frames, padding (True where padded), and sizes (height, width) before padding.

    Raises:
        ValueError: there is no clip, or clips differ in length.
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
    """Pads frames below and to the right to at least `MIN_SIDE` and to a multiple of `multiple`."""
    height, width = (_round_up(max(side, MIN_SIDE), multiple) for side in frames.shape[-2:])
    grow = (0, width - frames.shape[-1], 0, height - frames.shape[-2])
    return F.pad(frames, grow), F.pad(padding, grow, value=True)


def resize_padding(padding: Bool[Tensor, "b h w"], height: int, width: int) -> Bool[Tensor, "b {height} {width}"]:
    """Resizes the padding mask to a coarser level with PyTorch's `nearest` (spec 3)."""
    return F.interpolate(padding[:, None].float(), (height, width), mode="nearest")[:, 0].bool()


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
