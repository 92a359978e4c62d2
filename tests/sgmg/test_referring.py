import numpy as np
import pytest

from sgmg.masks import mask_to_rle, masks_to_rles
from sgmg.referring import (
    Expression,
    Overlap,
    best_candidate,
    box_hits,
    box_overlap,
    box_precision,
    mask_ap,
    mask_overlap,
    overlap_scores,
)

SIZE = (40, 60)


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


TRUTH = mask_to_rle(rectangle(5, 5, 10, 10))
NOTHING = mask_to_rle(rectangle(0, 0, 0, 0))


def overlap(intersections: list[float], unions: list[float]) -> Overlap:
    return Overlap(np.array(intersections, dtype=np.float32), np.array(unions, dtype=np.float32))


def test_masks_overlap_as_their_pixels_do() -> None:
    masks = np.random.default_rng(0).random((3, *SIZE)) < 0.5
    pairs = mask_overlap(masks_to_rles(masks), mask_to_rle(masks[0]), SIZE)
    assert pairs.intersection.tolist() == (masks & masks[0]).sum(axis=(1, 2)).tolist()
    assert pairs.union.tolist() == (masks | masks[0]).sum(axis=(1, 2)).tolist()


def test_empty_against_empty_overlaps_fully() -> None:
    assert mask_overlap([NOTHING, TRUTH], NOTHING, SIZE).iou.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_boxes_overlap_without_a_pixel_added() -> None:
    pairs = box_overlap(np.array([[0.0, 0, 4, 4], [9, 9, 10, 10]]), np.array([2.0, 0, 6, 4]))
    assert pairs.intersection.tolist() == [8.0, 0.0]
    assert pairs.union.tolist() == [24.0, 17.0]


def test_among_equal_scores_the_last_candidate_is_best() -> None:
    assert best_candidate(np.array([0.5, 0.7, 0.7])) == 2
    assert best_candidate(np.array([0.7, 0.5, 0.2])) == 0


def test_precision_mean_and_overall_iou_of_a_benchmark() -> None:
    scores = overlap_scores(overlap([55, 300, 0], [100, 400, 10]))
    assert scores.precision == pytest.approx((2 / 3, 1 / 3, 1 / 3, 0, 0))
    assert scores.mean_iou == pytest.approx((0.55 + 0.75 + 0) / 3, abs=1e-6)
    assert scores.overall_iou == pytest.approx(355 / 510)


def test_an_iou_at_the_threshold_is_not_above_it() -> None:
    assert overlap_scores(overlap([1000], [2000])).precision[0] == 0.0
    assert overlap_scores(overlap([1001], [2000])).precision[0] == 1.0


def test_a_box_is_hit_once_it_is_among_the_highest_scored() -> None:
    truth = np.array([10.0, 10, 30, 30])
    boxes = np.tile(np.array([50.0, 50, 60, 60]), (6, 1))
    boxes[2] = truth
    assert box_hits(boxes, np.array([0.1, 0.2, 0.9, 0.4, 0.5, 0.6]), truth).tolist() == [True, True, True]
    assert box_hits(boxes, np.array([0.7, 0.2, 0.6, 0.4, 0.5, 0.1]), truth).tolist() == [False, True, True]
    assert box_hits(boxes, np.array([0.7, 0.2, 0.1, 0.4, 0.5, 0.6]), truth).tolist() == [False, False, True]


def test_among_equal_scores_the_greater_box_comes_first() -> None:
    truth = np.array([10.0, 10, 30, 30])
    others = [[10.0, 10, 12, 90], [9.0, 90, 99, 99]]
    for place in range(3):  # wherever it is listed
        boxes = np.array([*others[:place], truth.tolist(), *others[place:]])
        assert box_hits(boxes, np.full(3, 0.5), truth)[0]  # by its third coordinate
        greater = np.where(boxes == 9, 11, boxes)  # in the first coordinate of another
        assert not box_hits(greater, np.full(3, 0.5), truth)[0]
        assert box_hits(boxes, np.array([0.5] * place + [0.6] + [0.5] * (2 - place)), truth)[0]


def test_a_box_is_hit_by_giou_not_by_iou() -> None:
    truth, box = np.array([0.0, 0, 10, 10]), np.array([[3.0, 3, 11, 11]])
    assert box_overlap(np.array([[0.0, 0, 10, 6]]), truth).iou[0] > 0.5
    assert box_hits(np.array([[0.0, 0, 10, 6]]), np.array([1.0]), truth).tolist() == [True] * 3
    assert box_hits(box, np.array([1.0]), truth).tolist() == [False] * 3


def test_box_precision_is_the_share_that_was_hit_sorted() -> None:
    hits = np.array([[False, True, True], [False, False, True], [True, True, True], [False, False, False]])
    assert box_precision(hits) == (0.25, 0.5, 0.75)
    assert box_precision(hits[:, ::-1]) == (0.25, 0.5, 0.75)


def test_perfect_masks_have_an_average_precision_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    ap = mask_ap([Expression(SIZE, TRUTH, [TRUTH, NOTHING], [0.9, 0.1])])
    assert (ap.ap, ap.ap50, ap.ap75) == pytest.approx((1.0, 1.0, 1.0))
    assert (ap.small, ap.medium, ap.large) == pytest.approx((1.0, -1, -1))
    assert capsys.readouterr().out == ""


def test_a_better_candidate_helps_less_the_lower_it_is_scored() -> None:
    wrong = mask_to_rle(rectangle(25, 40, 10, 10))
    first = mask_ap([Expression(SIZE, TRUTH, [TRUTH, wrong], [0.9, 0.1])])
    second = mask_ap([Expression(SIZE, TRUTH, [TRUTH, wrong], [0.1, 0.9])])
    assert first.ap == pytest.approx(1.0)
    assert second.ap == pytest.approx(0.5)


def test_given_areas_decide_what_is_small_and_large() -> None:
    ap = mask_ap([Expression(SIZE, TRUTH, [TRUTH], [0.9], truth_area=100_000.0)])
    assert (ap.small, ap.medium, ap.large) == pytest.approx((-1, -1, 1.0))


def test_areas_of_candidates_decide_which_misses_count_as_large() -> None:
    wrong = mask_to_rle(rectangle(25, 40, 10, 10))
    expression = Expression(SIZE, TRUTH, [wrong, TRUTH], [0.9, 0.1])
    larger = Expression(SIZE, TRUTH, [wrong, TRUTH], [0.9, 0.1], result_areas=[100_000.0, 100.0])
    assert mask_ap([expression]).small == pytest.approx(0.5)
    assert mask_ap([larger]).small == pytest.approx(1.0)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidates"):
        mask_ap([Expression(SIZE, TRUTH, [], [])])
    with pytest.raises(ValueError, match="no expressions"):
        overlap_scores(overlap([], []))
    with pytest.raises(ValueError, match="no expressions"):
        box_precision(np.zeros((0, 3), dtype=np.bool_))


def test_every_candidate_needs_a_score() -> None:
    with pytest.raises(ValueError, match="2 candidates have 1 scores"):
        Expression(SIZE, TRUTH, [TRUTH, TRUTH], [0.5])
    with pytest.raises(ValueError, match="1 candidates have 2 scores"):
        box_hits(np.zeros((1, 4)), np.zeros(2), np.zeros(4))


def test_every_candidate_needs_an_area_if_areas_are_given() -> None:
    with pytest.raises(ValueError, match="1 candidates have 2 areas"):
        Expression(SIZE, TRUTH, [TRUTH], [0.5], result_areas=[1.0, 2.0])
