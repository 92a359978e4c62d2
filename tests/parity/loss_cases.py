"""Golden cases of boxes, matching and losses: what sgmg answers to the inputs of the published implementation."""

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from pack import Arrays, Case
from sgmg.batch import ClipTargets
from sgmg.boxes import cxcywh_to_xyxy, generalized_iou, inverse_sigmoid, iou_and_union, xyxy_to_cxcywh
from sgmg.losses import count_valid_frames, layer_losses, total
from sgmg.matching import match, matching_costs


def boxops(case: Case) -> Arrays:
    a, b = (cxcywh_to_xyxy(torch.from_numpy(case.inputs[name])) for name in "ab")
    zero = torch.zeros(1, 4)
    if case.params.get("degenerate"):
        b = torch.cat([b, zero])
    iou, union = iou_and_union(a[:, None], b)
    outputs = {
        "xyxy_a": a,
        "cxcywh_back": xyxy_to_cxcywh(a),
        "iou": iou,
        "union": union,
        "giou": generalized_iou(a[:, None], b),
        "giou_zero_zero": generalized_iou(zero[:, None], zero),
        "inverse_sigmoid": inverse_sigmoid(torch.from_numpy(case.inputs["x"])),
    }
    return {name: value.numpy() for name, value in outputs.items()}


def matcher(case: Case) -> Arrays:
    scores = _scores(torch.from_numpy(case.inputs["pred_logits"]))
    boxes, masks = (torch.from_numpy(case.inputs[name]) for name in ("pred_boxes", "pred_masks"))
    height, width = masks.shape[-2:]
    targets = padded_targets(case, 2 * height, 2 * width)
    return {
        "cost": matching_costs(scores, boxes, masks, targets).numpy(),
        "src_ind": match(scores, boxes, masks, targets).numpy(),
    }


def criterion(case: Case) -> Arrays:
    predictions = {
        name: torch.from_numpy(value).requires_grad_()
        for name, value in case.inputs.items()
        if name.startswith("pred_")
    }
    height, width = case.inputs["pred_masks"].shape[-2:]
    targets = padded_targets(case, height, width)
    # The last layer bears no number, and its match is the first row of the indices.
    early = sorted(int(name.rsplit("_", 1)[1]) for name in predictions if re.fullmatch(r"pred_logits_\d+", name))
    suffixes = ["", *(f"_{layer}" for layer in early)]

    outputs: dict[str, Tensor] = {}
    totals = []
    for suffix, matched in zip(suffixes, torch.from_numpy(case.inputs["indices"]), strict=True):
        losses = layer_losses(
            _scores(predictions[f"pred_logits{suffix}"]),
            predictions[f"pred_boxes{suffix}"],
            predictions[f"pred_masks{suffix}"],
            predictions[f"pred_masks_low{suffix}"],
            matched,
            targets,
            count_valid_frames(targets),
        )
        outputs |= {f"loss/loss_{name}{suffix}": value[None] for name, value in losses.items()}
        totals.append(total(losses))
    outputs["total"] = torch.stack(totals).sum()[None]
    gradients = torch.autograd.grad(outputs["total"], list(predictions.values()))
    outputs |= {f"grad/{name}": gradient for name, gradient in zip(predictions, gradients, strict=True)}
    return {name: value.detach().numpy() for name, value in outputs.items()}


CASES: dict[str, Callable[[Case], Arrays]] = {"boxops": boxops, "matcher": matcher, "criterion": criterion}


def _scores(logits: Tensor) -> Tensor:
    return rearrange(logits, "e t q 1 -> e t q")


def padded_targets(case: Case, height: int, width: int) -> ClipTargets:
    """The targets of all clips of a case, padded bottom and right with zeros; their boxes are unit cxcywh already."""
    clips = range(len(case.params["sizes"]))
    masks = [torch.from_numpy(case.inputs[f"masks{clip}"]) for clip in clips]
    return ClipTargets(
        masks=torch.stack([F.pad(mask, (0, width - mask.shape[-1], 0, height - mask.shape[-2])) for mask in masks]),
        boxes=torch.from_numpy(np.stack([case.inputs[f"boxes{clip}"] for clip in clips])),
        valid=torch.from_numpy(np.stack([case.inputs[f"valid{clip}"] for clip in clips])).bool(),
        weight=torch.ones(len(clips)),
    )
