import pytest
import torch

from sgmg.boxes import (
    cxcywh_to_xyxy,
    generalized_iou,
    inverse_sigmoid,
    iou_and_union,
    pixels_from_unit,
    unit_from_pixels,
    xyxy_to_cxcywh,
)

SQUARE = torch.tensor([0.0, 0.0, 2.0, 2.0])


@pytest.mark.usefixtures("in_float64")
def test_a_box_keeps_its_place_when_its_format_changes() -> None:
    torch.testing.assert_close(
        cxcywh_to_xyxy(torch.tensor([[0.5, 0.4, 0.2, 0.6]])), torch.tensor([[0.4, 0.1, 0.6, 0.7]])
    )


@pytest.mark.usefixtures("in_float64")
def test_a_box_survives_the_round_trip_between_formats() -> None:
    boxes = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


@pytest.mark.usefixtures("in_float64")
def test_a_box_survives_the_round_trip_to_pixels() -> None:
    boxes = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[360, 640], [320, 200]])[:, None]
    torch.testing.assert_close(unit_from_pixels(pixels_from_unit(boxes, sizes), sizes), boxes)


def test_sizes_are_height_then_width() -> None:
    sizes = torch.tensor([[10, 40], [20, 30]])
    pixels = pixels_from_unit(torch.ones(2, 4), sizes)
    assert pixels.tolist() == [[40, 10, 40, 10], [30, 20, 30, 20]]


def test_one_size_serves_many_boxes() -> None:
    assert unit_from_pixels(torch.full((3, 4), 20.0), torch.tensor([20, 40])).tolist() == [[0.5, 1, 0.5, 1]] * 3


def test_overlap_is_the_shared_part_of_both_areas() -> None:
    iou, union = iou_and_union(SQUARE, torch.tensor([1.0, 1.0, 4.0, 3.0]))
    assert union.item() == pytest.approx(4 + 6 - 1)
    assert iou.item() == pytest.approx(1 / 9, abs=1e-6)


def test_boxes_apart_on_both_axes_share_nothing() -> None:
    iou, union = iou_and_union(SQUARE, torch.tensor([3.0, 3.0, 4.0, 4.0]))
    assert union.item() == 5
    assert iou.item() == pytest.approx(0, abs=1e-6)


def test_every_box_can_be_compared_with_every_other() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0]])
    table = generalized_iou(boxes[:, None], boxes[:2])
    assert table.shape == (3, 2)
    for row, column in [(0, 1), (1, 0), (2, 1)]:
        assert table[row, column] == generalized_iou(boxes[row], boxes[column])


def test_generalized_iou_pays_for_the_empty_part_of_the_enclosing_box() -> None:
    further = torch.tensor([[3.0, 0.0, 4.0, 2.0], [9.0, 0.0, 10.0, 2.0]])
    near, far = generalized_iou(SQUARE, further).tolist()
    assert near == pytest.approx(-2 / 8, abs=1e-5)
    assert far == pytest.approx(-14 / 20, abs=1e-5)


def test_generalized_iou_of_equal_boxes_is_one_but_of_two_zero_boxes_zero() -> None:
    assert generalized_iou(SQUARE, SQUARE).item() == pytest.approx(1, abs=1e-6)
    assert generalized_iou(torch.zeros(4), torch.zeros(4)).item() == 0


def test_a_box_far_from_its_target_is_still_drawn_to_it() -> None:
    box = torch.tensor([5.0, 0.0, 6.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(generalized_iou(box, SQUARE), box)
    assert gradient[0] < 0


@pytest.mark.usefixtures("in_float64")
def test_inverse_sigmoid_undoes_sigmoid_between_its_bounds() -> None:
    logits = torch.linspace(-8, 8, 17)
    torch.testing.assert_close(inverse_sigmoid(logits.sigmoid()), logits, atol=1e-3, rtol=1e-3)


def test_inverse_sigmoid_stays_finite_outside_the_unit_interval() -> None:
    low, high = inverse_sigmoid(torch.tensor([-3.0, 7.0])).tolist()
    assert low == pytest.approx(-11.512925)
    assert high == pytest.approx(11.512925)
