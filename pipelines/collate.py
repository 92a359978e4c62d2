"""Clips of plain arrays to what the model eats: normalized, padded, with the tokens of their sentences."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.clip import Clip
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.boxes import unit_from_pixels, xyxy_to_cxcywh
from sgmg.preprocess import normalize, pad_clips
from sgmg.tokenizer import Tokenizer

MULTIPLE = 32
"""Pixels that the sides of a training batch are rounded up to (spec model.md §1)."""

_NOTHING = "nothing"
"""What is asked of the placeholder of a dropped sample; its weight is 0."""


def collate(
    clips: Sequence[Clip | None], tokenizer: Tokenizer, length: int, *, pin: bool = False
) -> tuple[ClipBatch, ClipTargets]:
    """The clips of one forward pass, one expression each.

    None is a dropped sample: it is left out where another clip is there, and else stands as a small black clip of
    weight 0, so that a rank always has something to do.

    Args:
        clips: at least one slot.
        length: frames T of a clip, for the placeholder.
        pin: put the tensors into pinned memory, for a copy to the GPU beside the computing.
    """
    kept = [clip for clip in clips if clip is not None] or [_placeholder(length)]
    weight = torch.ones(len(kept)) if any(clip is not None for clip in clips) else torch.zeros(1)
    frames, padding, sizes = pad_clips([normalize(clip.frames) for clip in kept], MULTIPLE)
    words, word_padding = tokenizer([clip.text for clip in kept])
    valid = torch.from_numpy(np.stack([clip.valid for clip in kept]))
    boxes = torch.from_numpy(np.stack([clip.boxes for clip in kept])).float()
    asked = [clip.asked for clip in kept if clip.asked is not None]
    batch = ClipBatch(
        frames=frames,
        padding=padding,
        sizes=sizes,
        words=words,
        word_padding=word_padding,
        clip_of=torch.arange(len(kept)),
        asked_frame=torch.tensor(asked) if asked else None,
    )
    height, width = frames.shape[-2:]
    targets = ClipTargets(
        masks=torch.stack([_padded(clip.masks, height, width) for clip in kept]),
        boxes=xyxy_to_cxcywh(unit_from_pixels(boxes, sizes[:, None])) * valid[..., None],
        valid=valid,
        weight=weight,
    )
    return (batch.pinned(), targets.pinned()) if pin else (batch, targets)


def _padded(masks: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Masks t h w with zeros below and to the right."""
    return F.pad(torch.from_numpy(masks), (0, width - masks.shape[2], 0, height - masks.shape[1]))


def _placeholder(length: int) -> Clip:
    return Clip(
        frames=np.zeros((length, MULTIPLE, MULTIPLE, 3), dtype=np.uint8),
        masks=np.zeros((length, MULTIPLE, MULTIPLE), dtype=np.bool_),
        boxes=np.zeros((length, 4), dtype=np.float32),
        valid=np.zeros(length, dtype=np.bool_),
        text=_NOTHING,
        asked=None,
    )
