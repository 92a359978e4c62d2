"""Losses of the predictions of one decoder layer, given the matched query of each expression (spec 9).

Everything is computed in float32, whatever the precision of the model: half precision is too coarse for the focal
factors and the sums over the pixels of a clip.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sgmg.batch import ClipTargets
from sgmg.boxes import cxcywh_to_xyxy, generalized_iou
from sgmg.model_input import is_at_hand

LOSS_WEIGHTS = {"ce": 2.0, "bbox": 5.0, "giou": 2.0, "mask": 2.0, "dice": 5.0, "mask_low": 2.0, "dice_low": 5.0}
"""Weight of each loss of a layer in the total; `_low` are the losses of the patch mask, at half resolution."""

FOCAL_ALPHA = 0.25
"""Focal weight of cells with label 1; those with label 0 weigh 1 - FOCAL_ALPHA. The exponent is 2."""


def check_targets(targets: ClipTargets) -> None:
    """Checks, before the targets travel to a device, that each expression has a valid frame.

    Raises:
        ValueError: an expression of weight > 0 has no valid frame; the message names its index.
    """
    if not is_at_hand(targets.valid):
        return
    lost = (targets.weight > 0) & ~targets.valid.any(dim=1)
    if lost.any():
        expressions, frames = targets.valid.shape
        names = ", ".join(map(str, lost.nonzero().flatten().tolist()))
        raise ValueError(
            f"A clip without a valid frame cannot be matched: the object of expression {names} "
            f"(of {expressions}, counted from 0) is in none of its {frames} frames. "
            f"Draw the sample again, or keep its slot with weight 0."
        )


def check_finite(values: Mapping[str, float], step: int) -> None:
    """Checks that the losses of a step and the norm of its gradient are finite (spec 9).

    Raises:
        FloatingPointError: one is not; the message names each such loss, its value, and the step.
    """
    lost = ", ".join(f"{name}={value}" for name, value in values.items() if not math.isfinite(value))
    if lost:
        raise FloatingPointError(
            f"At step {step} the losses are not finite: {lost}. Look at the batch of that step; then try a lower "
            f"learning rate, or bfloat16 instead of float16."
        )


def count_valid_frames(targets: ClipTargets) -> Float[Tensor, ""]:
    """Counts the frames that show their object, without expressions of weight 0: this rank's part of V in spec 9."""
    return (targets.valid & (targets.weight > 0)[:, None]).sum().float()


def half_resolution(masks: Bool[Tensor, "*n h w"]) -> Bool[Tensor, "*n _ _"]:
    """Returns the target of a patch mask: every second pixel, starting with the second (spec 9)."""
    return masks[..., 1::2, 1::2]


def focal(logits: Float[Tensor, "*n"], labels: Bool[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    """Computes the focal loss of each cell, unreduced (Lin et al. 2017; alpha 0.25, gamma 2). Labels broadcast.

    >>> focal(torch.tensor([0.0, 4.0]), torch.tensor([True, False]))
    tensor([0.0433, 2.9062])
    """
    # The softplus of what speaks against the label is the cross-entropy, without the cancellation inside
    # F.binary_cross_entropy_with_logits; exp(-entropy) is the probability p of the right answer, and expm1 keeps 1 - p
    # exact where p is nearly 1.
    entropy = F.softplus(torch.where(labels, -logits, logits))
    doubt = -torch.expm1(-entropy)
    return entropy * doubt.square() * torch.where(labels, FOCAL_ALPHA, 1 - FOCAL_ALPHA)


def dice(logits: Float[Tensor, "e t *q h w"], labels: Bool[Tensor, "e t *#q h w"]) -> Float[Tensor, " e *q"]:
    """Computes the Dice coefficient over all cells of a clip, smoothed by 1: near 0 (disjoint) to 1 (equal); spec 9."""
    cells = (1, -2, -1)
    probabilities = logits.sigmoid()
    shared = (probabilities * labels).sum(cells)
    return (2 * shared + 1) / (probabilities.sum(cells) + labels.sum(cells) + 1)


def layer_losses(
    scores: Float[Tensor, "e t q"],
    boxes: Float[Tensor, "e t q 4"],
    masks: Float[Tensor, "e t h w"],
    patch_masks: Float[Tensor, "e t h2 w2"],
    matched: Int[Tensor, " e"],
    targets: ClipTargets,
    valid_frames: Float[Tensor, ""] | float,
) -> dict[str, Float[Tensor, ""]]:
    """Computes the unweighted losses of one decoder layer, under the names of `LOSS_WEIGHTS` (spec 9).

    scores are logits and boxes unit cxcywh of all queries; masks (refined, the padded frame's size) and patch_masks
    (half of it) are logits of the matched query. valid_frames is V, at least 1: see `count_valid_frames`.
    Parity: padding counts in the mask losses, and a frame without the object in the box losses, with a zero box.
    An expression of weight 0 counts in no loss.

    Raises:
        ValueError: targets and predictions differ in expressions, frames or pixels; the message says which.
    """
    masks_low = half_resolution(targets.masks)
    check_shapes(
        scores=(scores, (*targets.valid.shape, scores.shape[-1])),
        masks=(masks, targets.masks.shape),
        patch_masks=(patch_masks, masks_low.shape),
    )
    scores, boxes, masks, patch_masks = (x.float() for x in (scores, boxes, masks, patch_masks))

    labels = targets.valid[..., None] & F.one_hot(matched, scores.shape[-1]).bool()[:, None]
    matched_boxes = boxes[torch.arange(len(matched), device=matched.device), :, matched]
    overlap = generalized_iou(cxcywh_to_xyxy(matched_boxes), cxcywh_to_xyxy(targets.boxes))
    of_expression = {
        "ce": focal(scores, labels).sum((1, 2)),
        "bbox": (matched_boxes - targets.boxes).abs().sum((1, 2)),
        "giou": (1 - overlap).sum(1),
        "mask": focal(masks, targets.masks).mean((1, 2, 3)),
        "dice": 1 - dice(masks, targets.masks),
        "mask_low": focal(patch_masks, masks_low).mean((1, 2, 3)),
        "dice_low": 1 - dice(patch_masks, masks_low),
    }
    share = targets.weight / torch.as_tensor(valid_frames, device=targets.weight.device).clamp(min=1)
    return {name: (losses * share).sum() for name, losses in of_expression.items()}


def total(losses: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Returns the weighted sum of one layer's losses (spec 9)."""
    return torch.stack([weight * losses[name] for name, weight in LOSS_WEIGHTS.items()]).sum()


def check_shapes(**predictions: tuple[Tensor, tuple[int, ...]]) -> None:
    """Checks that predictions have the given shapes, since broadcasting would hide a mismatch.

    Raises:
        ValueError: a shape differs; the message gives both shapes.
    """
    for name, (prediction, shape) in predictions.items():
        if prediction.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(prediction.shape)}, but these targets call for {tuple(shape)}. "
                f"Pad the targets to the size of the frames, one row for each expression and frame of the output."
            )
