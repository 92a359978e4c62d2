"""Matching of each expression to the query of lowest cost, the same one in all frames of the clip (spec 9)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sgmg.batch import ClipTargets
from sgmg.boxes import cxcywh_to_xyxy, generalized_iou
from sgmg.losses import FOCAL_ALPHA, check_shapes, dice, focal, half_resolution

COST_WEIGHTS = {"class": 2.0, "bbox": 5.0, "giou": 2.0, "mask": 2.0, "dice": 5.0}
"""Weight of each term in the cost of a query."""

LOG_EPS = 1e-8
"""Added inside the logarithms of the class cost (spec 9)."""


@torch.no_grad()
def match(
    scores: Float[Tensor, "e t q"],
    boxes: Float[Tensor, "e t q 4"],
    patch_masks_low: Float[Tensor, "e t q h w"],
    targets: ClipTargets,
) -> Int[Tensor, " e"]:
    """Returns the query of lowest cost for each expression; of equal ones, the first."""
    return matching_costs(scores, boxes, patch_masks_low, targets).argmin(dim=1)


@torch.no_grad()
def matching_costs(
    scores: Float[Tensor, "e t q"],
    boxes: Float[Tensor, "e t q 4"],
    patch_masks_low: Float[Tensor, "e t q h w"],
    targets: ClipTargets,
) -> Float[Tensor, "e q"]:
    """Computes the cost of matching each query to its expression, in float32 and without gradient (spec 9).

    scores are logits, boxes unit cxcywh, patch_masks_low logits at half the resolution of the targets.
    Costs of an expression of weight 0 are finite, but meaningless.

    Raises:
        ValueError: targets and predictions differ in expressions, frames or pixels; the message says which.
    """
    masks_low = half_resolution(targets.masks)[:, :, None]
    check_shapes(
        scores=(scores, (*targets.valid.shape, scores.shape[-1])),
        patch_masks_low=(patch_masks_low, (*scores.shape, *masks_low.shape[-2:])),
    )
    scores, boxes, patch_masks_low = scores.float(), boxes.float(), patch_masks_low.float()

    # Parity: frames without the object count in the box terms, with a zero box; the class term leaves them out.
    true_boxes = targets.boxes[:, :, None]
    overlap = generalized_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes))
    costs = {
        "class": _class_cost(scores, targets.valid),
        "bbox": (boxes - true_boxes).abs().sum(-1).mean(1),
        "giou": -overlap.mean(1),
        "mask": focal(patch_masks_low, masks_low).mean((1, -2, -1)),
        "dice": -dice(patch_masks_low, masks_low),
    }
    return torch.stack([weight * costs[name] for name, weight in COST_WEIGHTS.items()]).sum(0)


def _class_cost(scores: Float[Tensor, "e t q"], valid: Bool[Tensor, "e t"]) -> Float[Tensor, "e q"]:
    p = scores.sigmoid()
    as_object = FOCAL_ALPHA * (1 - p).square() * -(p + LOG_EPS).log()
    as_nothing = (1 - FOCAL_ALPHA) * p.square() * -(1 - p + LOG_EPS).log()
    cost = (as_object - as_nothing) * valid[..., None]
    return cost.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
