"""Decoding of the model's output: choice of a query, masks at the original size, and merging of objects."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sgmg.batch import ClipOutput
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit

THRESHOLD = 0.5
"""Probability above which a pixel belongs to the object (spec 8)."""
BACKGROUND = 0.1
"""Probability of the background when objects are merged (spec 8)."""


def best_query(scores: Float[Tensor, "e t q"]) -> Int[Tensor, " e"]:
    """Returns the query with the highest score, averaged over the clip (paper 3.4).

    >>> best_query(torch.tensor([[[0.0, 3.0], [0.0, -1.0]]]))
    tensor([1])
    """
    return scores.sigmoid().mean(dim=1).argmax(dim=-1)


def ranked_queries(scores: Float[Tensor, "e t q"]) -> Int[Tensor, "e q"]:
    """Sorts all queries by score, the best first; equal ones keep their order (RefCOCO)."""
    return scores.sigmoid().mean(dim=1).argsort(dim=-1, descending=True, stable=True)


def take_query(values: Float[Tensor, "e t q *v"], query: Int[Tensor, " e"]) -> Float[Tensor, "e t *v"]:
    """Selects the values of one query per expression, in every frame."""
    return values[torch.arange(len(values), device=values.device), :, query]


def original_logits(
    logits: Float[Tensor, "*n h w"], size: tuple[int, int], original: tuple[int, int]
) -> Float[Tensor, "*n h2 w2"]:
    """Crops the padding of mask logits and resizes them bilinearly to the size of the source.

    Args:
        logits: mask logits at the size of the padded frames.
        size: (height, width) of the frames before padding.
        original: (height, width) of the source.
    """
    height, width = size
    cropped = logits[..., :height, :width].reshape(-1, 1, height, width).float()
    resized = F.interpolate(cropped, original, mode="bilinear", align_corners=False)
    return resized.reshape(*logits.shape[:-2], *original)


def mask_from_logits(logits: Float[Tensor, "*n h w"], threshold: float = THRESHOLD) -> Bool[Tensor, "*n h w"]:
    """Returns the pixels whose probability is above the threshold."""
    return logits.sigmoid() > threshold


def packed_bits(masks: Bool[Tensor, "*n h w"]) -> UInt8[Tensor, "*n b"]:
    """Packs masks into bits as `sgmg.masks.masks_to_bits` does, on the device that they are on."""
    flat = masks.transpose(-1, -2).flatten(-2)
    eight = F.pad(flat, (0, -flat.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (eight << torch.arange(7, -1, -1, dtype=torch.uint8, device=masks.device)).sum(-1, dtype=torch.uint8)


def merge_objects(probabilities: Float[Tensor, "o t h w"]) -> Int[Tensor, "t h w"]:
    """Merges objects into a map of their numbers, 0 for background: the most probable wins, ties go to the first.

    >>> merge_objects(torch.tensor([0.6, 0.4, 0.9]).view(3, 1, 1, 1)).item()
    3
    """
    likely = probabilities.masked_fill(probabilities < THRESHOLD, 0)
    background = torch.full_like(likely[:1], BACKGROUND)
    return torch.cat((background, likely)).argmax(dim=0)


def boxes_in_pixels(out: ClipOutput, originals: Int[Tensor, "b 2"]) -> Float[Tensor, "e t q 4"]:
    """Returns the boxes of the last layer as xyxy in pixels of the sources, whose (height, width) is `originals`."""
    sizes = originals[out.clip_of][:, None, None].expand(*out.boxes.shape[1:-1], 2)
    return pixels_from_unit(cxcywh_to_xyxy(out.boxes[-1]), sizes)
