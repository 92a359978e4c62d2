from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sgmg.batch import ClipTargets
from sgmg.boxes import cxcywh_to_xyxy, generalized_iou
from sgmg.matching import match, matching_costs

EXPRESSIONS, FRAMES, QUERIES, HEIGHT, WIDTH = 2, 3, 4, 8, 12


@pytest.fixture
def targets() -> ClipTargets:
    """Two clips of three frames; the object of the second one is not in the middle frame."""
    random = torch.Generator().manual_seed(0)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    return ClipTargets(
        masks=torch.rand(EXPRESSIONS, FRAMES, HEIGHT, WIDTH, generator=random) > 0.6,
        boxes=(torch.rand(EXPRESSIONS, FRAMES, 4, generator=random) * 0.5 + 0.1) * valid[..., None],
        valid=valid,
        weight=torch.ones(EXPRESSIONS),
    )


class Predictions(NamedTuple):
    """What `match` takes of every query, in its order."""

    scores: Tensor
    boxes: Tensor
    masks: Tensor


def predictions(seed: int) -> Predictions:
    random = torch.Generator().manual_seed(seed)
    shape = (EXPRESSIONS, FRAMES, QUERIES)
    return Predictions(
        torch.randn(shape, generator=random),
        torch.rand((*shape, 4), generator=random) * 0.5 + 0.1,
        torch.randn((*shape, HEIGHT // 2, WIDTH // 2), generator=random) * 3,
    )


def cost_of_one(scores: Tensor, boxes: Tensor, masks: Tensor, targets: ClipTargets, e: int, q: int) -> float:
    """Spec 9, written out for one query in double precision."""
    p = scores[e, targets.valid[e], q].double().sigmoid()
    as_class = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
    box, true_box = boxes[e, :, q].double(), targets.boxes[e].double()
    overlap = generalized_iou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(true_box))
    y = targets.masks[e, :, 1::2, 1::2].double()
    m = masks[e, :, q].double().sigmoid()
    as_mask = 0.25 * (1 - m) ** 2 * -m.log() * y + 0.75 * m**2 * -(1 - m).log() * (1 - y)
    as_dice = (2 * (m * y).sum() + 1) / (m.sum() + y.sum() + 1)
    l1 = (box - true_box).abs().sum(-1)
    return (2 * as_class.mean() + 5 * l1.mean() - 2 * overlap.mean() + 2 * as_mask.mean() - 5 * as_dice).item()


def perfect(targets: ClipTargets, query: int) -> Predictions:
    """Predictions in which one query has everything right."""
    scores, boxes, masks = predictions(seed=5)
    scores[:, :, query] = 4
    boxes[:, :, query] = targets.boxes
    masks[:, :, query] = targets.masks[..., 1::2, 1::2] * 16.0 - 8
    return Predictions(scores, boxes, masks)


@pytest.mark.usefixtures("in_float64")
def test_the_cost_is_that_of_the_paper_for_every_expression_and_query(targets: ClipTargets) -> None:
    scores, boxes, masks = predictions(seed=1)
    costs = matching_costs(scores, boxes, masks, targets)
    wanted = [[cost_of_one(scores, boxes, masks, targets, e, q) for q in range(QUERIES)] for e in range(EXPRESSIONS)]
    torch.testing.assert_close(costs, torch.tensor(wanted))


@pytest.mark.parametrize("query", range(QUERIES))
def test_the_query_that_has_everything_right_is_matched(targets: ClipTargets, query: int) -> None:
    assert match(*perfect(targets, query), targets).tolist() == [query, query]


def test_equal_queries_go_to_the_lowest_index(targets: ClipTargets) -> None:
    scores, boxes, masks = (x[:, :, [1, 0, 0, 1]] for x in perfect(targets, query=0))
    assert match(scores, boxes, masks, targets).tolist() == [1, 1]


def test_scores_of_frames_without_the_object_do_not_count(targets: ClipTargets) -> None:
    scores, boxes, masks = predictions(seed=2)
    costs = matching_costs(scores, boxes, masks, targets)
    scores[1, 1] += 5
    torch.testing.assert_close(matching_costs(scores, boxes, masks, targets), costs, atol=0, rtol=0)


def test_boxes_of_frames_without_the_object_do_count(targets: ClipTargets) -> None:
    scores, boxes, masks = predictions(seed=3)
    costs = matching_costs(scores, boxes, masks, targets)
    boxes[1, 1, 2] += 0.3
    changed = matching_costs(scores, boxes, masks, targets) != costs
    assert changed.nonzero().tolist() == [[1, 2]]


def test_costs_stay_finite_without_a_valid_frame(targets: ClipTargets) -> None:
    nothing = replace(targets, valid=torch.zeros_like(targets.valid), boxes=torch.zeros_like(targets.boxes))
    assert matching_costs(*predictions(seed=4), nothing).isfinite().all()


def test_costs_stay_finite_for_logits_far_out(targets: ClipTargets) -> None:
    scores, boxes, masks = predictions(seed=4)
    assert matching_costs(scores * 1e4, boxes, masks * 1e4, targets).isfinite().all()


def test_costs_carry_no_gradient(targets: ClipTargets) -> None:
    scores, boxes, masks = (x.requires_grad_() for x in predictions(seed=4))
    assert not matching_costs(scores, boxes, masks, targets).requires_grad


def test_costs_are_float32_under_autocast(targets: ClipTargets) -> None:
    half = Predictions(*(x.bfloat16() for x in predictions(seed=6)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = matching_costs(*half, targets)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, matching_costs(*Predictions(*(x.float() for x in half)), targets), atol=0, rtol=0)


def test_one_asked_frame_is_a_clip_of_one(targets: ClipTargets) -> None:
    first = ClipTargets(targets.masks[:, :1], targets.boxes[:, :1], targets.valid[:, :1], targets.weight)
    assert match(*Predictions(*(x[:, :1] for x in perfect(targets, query=3))), first).tolist() == [3, 3]


def test_targets_of_other_frames_are_refused_by_name(targets: ClipTargets) -> None:
    first = ClipTargets(targets.masks[:, :1], targets.boxes[:, :1], targets.valid[:, :1], targets.weight)
    with pytest.raises(ValueError, match=r"scores has shape \(2, 3, 4\), but these targets call for \(2, 1, 4\)"):
        match(*predictions(seed=0), first)


def test_masks_that_are_not_half_the_target_are_refused_by_name(targets: ClipTargets) -> None:
    scores, boxes, masks = predictions(seed=0)
    with pytest.raises(ValueError, match=r"patch_masks_low has shape \(2, 3, 4, 4, 5\)"):
        match(scores, boxes, masks[..., :-1], targets)
