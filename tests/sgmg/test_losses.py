import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sgmg.batch import ClipTargets
from sgmg.boxes import cxcywh_to_xyxy, generalized_iou
from sgmg.losses import (
    LOSS_WEIGHTS,
    check_finite,
    check_targets,
    count_valid_frames,
    dice,
    focal,
    half_resolution,
    layer_losses,
    total,
)

EXPRESSIONS, FRAMES, QUERIES, HEIGHT, WIDTH = 3, 2, 4, 8, 12


class Layer(NamedTuple):
    """What `layer_losses` takes of one decoder layer, in its order."""

    scores: Tensor
    boxes: Tensor
    masks: Tensor
    patch_masks: Tensor
    matched: Tensor


@pytest.fixture
def targets() -> ClipTargets:
    """Three clips of two frames; the object of the second one is only in its last frame."""
    random = torch.Generator().manual_seed(0)
    valid = torch.tensor([[True, True], [False, True], [True, True]])
    return ClipTargets(
        masks=torch.rand(EXPRESSIONS, FRAMES, HEIGHT, WIDTH, generator=random) > 0.6,
        boxes=(torch.rand(EXPRESSIONS, FRAMES, 4, generator=random) * 0.5 + 0.1) * valid[..., None],
        valid=valid,
        weight=torch.ones(EXPRESSIONS),
    )


@pytest.fixture
def layer() -> Layer:
    random = torch.Generator().manual_seed(1)
    return Layer(
        scores=torch.randn(EXPRESSIONS, FRAMES, QUERIES, generator=random),
        boxes=torch.rand(EXPRESSIONS, FRAMES, QUERIES, 4, generator=random) * 0.5 + 0.1,
        masks=torch.randn(EXPRESSIONS, FRAMES, HEIGHT, WIDTH, generator=random) * 3,
        patch_masks=torch.randn(EXPRESSIONS, FRAMES, HEIGHT // 2, WIDTH // 2, generator=random) * 3,
        matched=torch.tensor([2, 0, 3]),
    )


def spelled_out(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss as the paper writes it, in double precision."""
    p = torch.where(labels, logits.double().sigmoid(), (-logits.double()).sigmoid())
    return -p.log() * (1 - p) ** 2 * torch.where(labels, 0.25, 0.75)


def of_third_weight(targets: ClipTargets, weight: float) -> ClipTargets:
    return replace(targets, weight=torch.tensor([1.0, 1.0, weight]))


def without_object(targets: ClipTargets) -> ClipTargets:
    return replace(targets, valid=targets.valid & torch.tensor([True, True, False])[:, None])


@pytest.mark.usefixtures("in_float64")
def test_focal_is_that_of_its_paper() -> None:
    logits = torch.linspace(-12, 12, 25)
    labels = torch.arange(25) % 2 == 0
    torch.testing.assert_close(focal(logits, labels).double(), spelled_out(logits, labels))


def test_focal_grows_linearly_where_the_answer_is_far_off() -> None:
    logits = torch.tensor([1e4, -1e4, 1e4], requires_grad=True)
    losses = focal(logits, torch.tensor([False, True, True]))
    assert losses.tolist() == [7500, 2500, 0]
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.tolist() == [0.75, -0.25, 0]


@pytest.mark.usefixtures("in_float64")
def test_dice_takes_all_cells_of_a_clip_together() -> None:
    labels = torch.zeros(1, 2, 1, 3, dtype=torch.bool)
    labels[0, 0] = True
    sure = torch.full((1, 2, 1, 3), -50.0)
    sure[0, :, 0, 0] = 50
    assert dice(sure, labels).item() == pytest.approx((2 * 1 + 1) / (2 + 3 + 1))


def test_dice_of_nothing_in_nothing_is_one() -> None:
    assert dice(torch.full((1, 1, 2, 2), -50.0), torch.zeros(1, 1, 2, 2, dtype=torch.bool)).item() == 1


def test_the_half_resolution_target_takes_odd_rows_and_columns() -> None:
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[0, 3, 1] = True
    assert half_resolution(mask).int().tolist() == [[[0, 0, 0], [1, 0, 0]]]
    assert not half_resolution(~mask)[0, 1, 0]


@pytest.mark.usefixtures("in_float64")
def test_only_the_matched_query_of_a_valid_frame_is_labelled(layer: Layer, targets: ClipTargets) -> None:
    labels = torch.zeros(EXPRESSIONS, FRAMES, QUERIES, dtype=torch.bool)
    for expression, frame, query in [(0, 0, 2), (0, 1, 2), (1, 1, 0), (2, 0, 3), (2, 1, 3)]:
        labels[expression, frame, query] = True
    losses = layer_losses(*layer, targets, valid_frames=5.0)
    assert losses["ce"].item() == pytest.approx(spelled_out(layer.scores, labels).sum().item() / 5)


@pytest.mark.usefixtures("in_float64")
def test_boxes_of_all_frames_count_but_only_those_of_the_matched_query(layer: Layer, targets: ClipTargets) -> None:
    picked = torch.stack([layer.boxes[e, :, q] for e, q in enumerate(layer.matched.tolist())])
    losses = layer_losses(*layer, targets, valid_frames=5.0)
    assert losses["bbox"].item() == pytest.approx((picked - targets.boxes).abs().sum().item() / 5)
    overlap = generalized_iou(cxcywh_to_xyxy(picked), cxcywh_to_xyxy(targets.boxes))
    assert losses["giou"].item() == pytest.approx((1 - overlap).sum().item() / 5)


@pytest.mark.usefixtures("in_float64")
def test_masks_are_averaged_over_a_clip_and_summed_over_clips(layer: Layer, targets: ClipTargets) -> None:
    losses = layer_losses(*layer, targets, valid_frames=5.0)
    for suffix, logits, labels in [
        ("", layer.masks, targets.masks),
        ("_low", layer.patch_masks, targets.masks[..., 1::2, 1::2]),
    ]:
        p = logits.double().sigmoid()
        shared, size = (p * labels).sum((1, 2, 3)), p.sum((1, 2, 3)) + labels.sum((1, 2, 3))
        assert losses[f"mask{suffix}"].item() == pytest.approx(spelled_out(logits, labels).mean().item() * 3 / 5)
        assert losses[f"dice{suffix}"].item() == pytest.approx((1 - (2 * shared + 1) / (size + 1)).sum().item() / 5)


def test_the_total_weighs_every_loss() -> None:
    ones = {name: torch.tensor(10.0**power) for power, name in enumerate(LOSS_WEIGHTS)}
    assert total(ones).item() == 5252252  # dice_low 5, mask_low 2, dice 5, mask 2, giou 2, bbox 5, ce 2


@pytest.mark.usefixtures("in_float64")
def test_an_expression_of_weight_zero_counts_in_no_loss(layer: Layer, targets: ClipTargets) -> None:
    dropped = of_third_weight(targets, 0)
    alone = ClipTargets(targets.masks[:2], targets.boxes[:2], targets.valid[:2], targets.weight[:2])
    assert count_valid_frames(targets).item() == 5
    assert count_valid_frames(dropped).item() == count_valid_frames(alone).item() == 3
    losses = layer_losses(*layer, dropped, count_valid_frames(dropped))
    fewer = layer_losses(*Layer(*(x[:2] for x in layer)), alone, count_valid_frames(alone))
    torch.testing.assert_close(losses, fewer)


def test_an_expression_of_weight_zero_teaches_nothing(layer: Layer, targets: ClipTargets) -> None:
    predictions = [x.requires_grad_() for x in layer[:4]]
    losses = layer_losses(*layer, of_third_weight(targets, 0), valid_frames=3.0)
    for gradient in torch.autograd.grad(total(losses), predictions):
        assert gradient[:2].any()
        assert not gradient[2].any()


def test_a_batch_without_any_weight_costs_nothing(layer: Layer, targets: ClipTargets) -> None:
    empty = replace(targets, weight=torch.zeros(EXPRESSIONS))
    assert total(layer_losses(*layer, empty, count_valid_frames(empty))).item() == 0


def test_losses_are_float32_under_autocast(layer: Layer, targets: ClipTargets) -> None:
    half = Layer(*(x.bfloat16() if x.is_floating_point() else x for x in layer))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer_losses(*half, targets, valid_frames=5.0)
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    full = layer_losses(*Layer(*(x.float() if x.is_floating_point() else x for x in half)), targets, valid_frames=5.0)
    torch.testing.assert_close(mixed, full, atol=0, rtol=0)


def test_targets_of_other_frames_are_refused_by_name(layer: Layer, targets: ClipTargets) -> None:
    one = ClipTargets(targets.masks[:, :1], targets.boxes[:, :1], targets.valid[:, :1], targets.weight)
    with pytest.raises(ValueError, match=r"^scores has shape \(3, 2, 4\), but these targets call for \(3, 1, 4\)"):
        layer_losses(*layer, one, valid_frames=5.0)


def test_targets_of_another_size_are_refused_by_name(layer: Layer, targets: ClipTargets) -> None:
    wide = replace(targets, masks=torch.zeros(EXPRESSIONS, FRAMES, HEIGHT, 2 * WIDTH, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^masks has shape .* call for \(3, 2, 8, 24\)"):
        layer_losses(*layer, wide, valid_frames=5.0)
    with pytest.raises(ValueError, match=r"^patch_masks has shape .* call for \(3, 2, 4, 12\)"):
        layer_losses(*layer._replace(masks=wide.masks.float()), wide, valid_frames=5.0)


def test_targets_with_an_object_in_every_clip_pass(targets: ClipTargets) -> None:
    check_targets(targets)


def test_a_clip_without_its_object_is_named(targets: ClipTargets) -> None:
    with pytest.raises(ValueError, match=r"^A clip without a valid frame .* expression 2 \(of 3"):
        check_targets(without_object(targets))


def test_a_clip_without_its_object_may_keep_its_slot_with_weight_zero(targets: ClipTargets) -> None:
    check_targets(of_third_weight(without_object(targets), 0))


def test_losses_that_are_no_numbers_stop_the_run_by_name_value_and_step() -> None:
    check_finite({"ce": 1.0}, step=3)
    with pytest.raises(FloatingPointError, match=r"step 37.*dice_1=nan, total=inf"):
        check_finite({"dice_1": math.nan, "ce": 1.0, "total": math.inf}, step=37)
