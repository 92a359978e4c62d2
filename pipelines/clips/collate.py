"""Conversion of clips to model input: padded, with the tokens of their sentences."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from pipelines.clips.clip import Clip
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.boxes import unit_from_pixels, xyxy_to_cxcywh
from sgmg.preprocess import MIN_SIDE
from sgmg.tokenizer import Tokenizer

MULTIPLE = 32
"""Pixels; the sides of a training batch are rounded up to a multiple of this (spec model.md §1)."""

_NOTHING = "nothing"
"""Sentence of the placeholder of a dropped sample; its weight is 0."""


def collate(
    clips: Sequence[Clip | None], tokenizer: Tokenizer, length: int, *, pin: bool = False
) -> tuple[ClipBatch, ClipTargets]:
    """Converts the clips of one forward pass, with all their sentences, to a batch and its targets.

    None is a dropped sample. It is left out if there is another clip; otherwise it becomes a small black clip of weight
    0, so that every rank has something to compute.

    Args:
        clips: at least one slot.
        length: frames T of a clip, for the placeholder.
        pin: put the tensors into pinned memory, for a copy to the GPU during computation.
    """
    kept = [clip for clip in clips if clip is not None] or [_placeholder(length)]
    targets = [target for clip in kept for target in clip.targets]
    weight = torch.full((len(targets),), float(any(clip is not None for clip in clips)))
    frames, padding, sizes = _padded_clips(kept)
    token_ids, token_padding = tokenizer([target.text for target in targets])
    valid = torch.from_numpy(np.stack([target.valid for target in targets]))
    boxes = torch.from_numpy(np.stack([target.boxes for target in targets])).float()
    target_frames = [clip.target_frame for clip in kept if clip.target_frame is not None]
    clip_of = torch.tensor([place for place, clip in enumerate(kept) for _ in clip.targets])
    batch = ClipBatch(
        frames=frames,
        padding=padding,
        sizes=sizes,
        token_ids=token_ids,
        token_padding=token_padding,
        clip_of=clip_of,
        target_frame=torch.tensor(target_frames) if target_frames else None,
    )
    height, width = frames.shape[-2:]
    wanted = ClipTargets(
        masks=torch.stack([_padded(target.masks, height, width) for target in targets]),
        boxes=xyxy_to_cxcywh(unit_from_pixels(boxes, sizes[clip_of][:, None])) * valid[..., None],
        valid=valid,
        weight=weight,
    )
    return (batch.pinned(), wanted.pinned()) if pin else (batch, wanted)


def _padded_clips(
    clips: Sequence[Clip],
) -> tuple[UInt8[Tensor, "b t 3 h w"], Bool[Tensor, "b h w"], Int[Tensor, "b 2"]]:
    """Returns what `pad_clips` returns of bytes: a quarter of what floats would be. The model normalizes them."""
    sizes = torch.tensor([clip.frames.shape[1:3] for clip in clips])
    height, width = (-(-max(side, MIN_SIDE) // MULTIPLE) * MULTIPLE for side in sizes.amax(dim=0).tolist())
    frames = torch.zeros(len(clips), len(clips[0].frames), 3, height, width, dtype=torch.uint8)
    padding = torch.ones(len(clips), height, width, dtype=torch.bool)
    for place, clip in enumerate(clips):
        h, w = clip.frames.shape[1:3]
        padding[place, :h, :w] = False
        for frame, image in zip(frames[place], clip.frames, strict=True):
            for plane, pixels in zip(frame, cv2.split(image), strict=True):
                plane[:h, :w] = torch.from_numpy(pixels)
    return frames, padding, sizes


def _padded(masks: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Pads masks (t, h, w) with zeros at the bottom and right."""
    return F.pad(torch.from_numpy(masks), (0, width - masks.shape[2], 0, height - masks.shape[1]))


def _placeholder(length: int) -> Clip:
    return Clip(
        frames=np.zeros((length, MULTIPLE, MULTIPLE, 3), dtype=np.uint8),
        masks=np.zeros((length, MULTIPLE, MULTIPLE), dtype=np.bool_),
        boxes=np.zeros((length, 4), dtype=np.float32),
        valid=np.zeros(length, dtype=np.bool_),
        text=_NOTHING,
        target_frame=None,
    )
