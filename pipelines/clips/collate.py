"""Clips of plain arrays to what the model eats: normalized, padded, with the tokens of their sentences."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipelines.clips.clip import Clip
from sgmg.batch import ClipBatch, ClipTargets
from sgmg.boxes import unit_from_pixels, xyxy_to_cxcywh
from sgmg.preprocess import MEAN, MIN_SIDE, STD
from sgmg.tokenizer import Tokenizer

MULTIPLE = 32
"""Pixels that the sides of a training batch are rounded up to (spec model.md §1)."""

_NOTHING = "nothing"
"""What is asked of the placeholder of a dropped sample; its weight is 0."""


def collate(
    clips: Sequence[Clip | None], tokenizer: Tokenizer, length: int, *, pin: bool = False
) -> tuple[ClipBatch, ClipTargets]:
    """The clips of one forward pass, with all their sentences.

    None is a dropped sample: it is left out where another clip is there, and else stands as a small black clip of
    weight 0, so that a rank always has something to do.

    Args:
        clips: at least one slot.
        length: frames T of a clip, for the placeholder.
        pin: put the tensors into pinned memory, for a copy to the GPU beside the computing.
    """
    kept = [clip for clip in clips if clip is not None] or [_placeholder(length)]
    targets = [target for clip in kept for target in clip.targets]
    weight = torch.full((len(targets),), float(any(clip is not None for clip in clips)))
    frames, padding, sizes = _normalized_and_padded(kept)
    token_ids, token_padding = tokenizer([target.text for target in targets])
    valid = torch.from_numpy(np.stack([target.valid for target in targets]))
    boxes = torch.from_numpy(np.stack([target.boxes for target in targets])).float()
    asked = [clip.asked for clip in kept if clip.asked is not None]
    clip_of = torch.tensor([place for place, clip in enumerate(kept) for _ in clip.targets])
    batch = ClipBatch(
        frames=frames,
        padding=padding,
        sizes=sizes,
        token_ids=token_ids,
        token_padding=token_padding,
        clip_of=clip_of,
        target_frame=torch.tensor(asked) if asked else None,
    )
    height, width = frames.shape[-2:]
    wanted = ClipTargets(
        masks=torch.stack([_padded(target.masks, height, width) for target in targets]),
        boxes=xyxy_to_cxcywh(unit_from_pixels(boxes, sizes[clip_of][:, None])) * valid[..., None],
        valid=valid,
        weight=weight,
    )
    return (batch.pinned(), wanted.pinned()) if pin else (batch, wanted)


def _normalized_and_padded(
    clips: Sequence[Clip],
) -> tuple[Float[Tensor, "b t 3 h w"], Bool[Tensor, "b h w"], Int[Tensor, "b 2"]]:
    """What `pad_clips` makes of `normalize`d frames, to the bit, in a quarter of the time: each plane is normalized
    where it will stay, while it is in the processor's cache."""
    sizes = torch.tensor([clip.frames.shape[1:3] for clip in clips])
    height, width = (-(-max(side, MIN_SIDE) // MULTIPLE) * MULTIPLE for side in sizes.amax(dim=0).tolist())
    frames = torch.empty(len(clips), len(clips[0].frames), 3, height, width)
    padding = torch.ones(len(clips), height, width, dtype=torch.bool)
    for place, clip in enumerate(clips):
        h, w = clip.frames.shape[1:3]
        padding[place, :h, :w] = False
        frames[place, :, :, h:] = 0
        frames[place, :, :, :h, w:] = 0
        for frame, image in zip(frames[place], clip.frames, strict=True):
            for plane, pixels, mean, std in zip(frame, cv2.split(image), MEAN, STD, strict=True):
                plane[:h, :w].copy_(torch.from_numpy(pixels)).div_(255).sub_(mean).div_(std)
    return frames, padding, sizes


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
