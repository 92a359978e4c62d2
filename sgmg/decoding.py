"""From what the model says to what a user wants: the query chosen, masks at the original size, objects merged."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sgmg.batch import ClipOutput
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit

THRESHOLD = 0.5
"""Probability above which a pixel belongs to the object (spec 8)."""
BACKGROUND = 0.1
"""Probability every pixel has of being nobody's, where objects compete (spec 8)."""


def best_query(scores: Float[Tensor, "e t q"]) -> Int[Tensor, " e"]:
    """The query that fits the sentence best, averaged over the clip (paper 3.4).

    >>> best_query(torch.tensor([[[0.0, 3.0], [0.0, -1.0]]]))
    tensor([1])
    """
    return scores.sigmoid().mean(dim=1).argmax(dim=-1)


def ranked_queries(scores: Float[Tensor, "e t q"]) -> Int[Tensor, "e q"]:
    """All queries, the best first; equals keep their order (RefCOCO)."""
    return scores.sigmoid().mean(dim=1).argsort(dim=-1, descending=True, stable=True)


def take_query(values: Float[Tensor, "e t q *v"], query: Int[Tensor, " e"]) -> Float[Tensor, "e t *v"]:
    """What one query of each expression says in every frame."""
    return values[torch.arange(len(values), device=values.device), :, query]


def original_logits(
    logits: Float[Tensor, "*n h w"], size: tuple[int, int], original: tuple[int, int]
) -> Float[Tensor, "*n h2 w2"]:
    """Mask logits at the size of the source: padding cropped, then resized bilinearly.

    Args:
        logits: at the size of the padded frames.
        size: (height, width) of the frames before padding.
        original: (height, width) of the source.
    """
    height, width = size
    cropped = logits[..., :height, :width].reshape(-1, 1, height, width).float()
    resized = F.interpolate(cropped, original, mode="bilinear", align_corners=False)
    return resized.reshape(*logits.shape[:-2], *original)


def mask_from_logits(logits: Float[Tensor, "*n h w"], threshold: float = THRESHOLD) -> Bool[Tensor, "*n h w"]:
    """Pixels whose probability is above the threshold: by default, more likely in the object than not."""
    return logits.sigmoid() > threshold


def merge_objects(probabilities: Float[Tensor, "o t h w"]) -> Int[Tensor, "t h w"]:
    """One map of object numbers, 0 for background: where objects overlap the likelier wins, ties to the first.

    >>> merge_objects(torch.tensor([0.6, 0.4, 0.9]).view(3, 1, 1, 1)).item()
    3
    """
    likely = probabilities.masked_fill(probabilities < THRESHOLD, 0)
    background = torch.full_like(likely[:1], BACKGROUND)
    return torch.cat((background, likely)).argmax(dim=0)


def boxes_in_pixels(out: ClipOutput, originals: Int[Tensor, "b 2"]) -> Float[Tensor, "e t q 4"]:
    """Boxes of the last layer as xyxy in pixels of the source, whose (height, width) is given for each clip."""
    sizes = originals[out.clip_of][:, None, None].expand(*out.boxes.shape[1:-1], 2)
    return pixels_from_unit(cxcywh_to_xyxy(out.boxes[-1]), sizes)
