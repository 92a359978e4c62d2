import numpy as np
import pytest

from pipelines.scoring.figures import average_precision
from pipelines.scoring.pictures import match_boxes, match_masks
from pipelines.scoring.score import PictureRow, figures
from sgmg.masks import masks_to_rles
from sgmg.referring import Expression, mask_ap

SIZE = (40, 60)


def rectangles(rng: np.random.Generator, count: int) -> list[str]:
    masks = np.zeros((count, *SIZE), dtype=np.bool_)
    for mask in masks:
        top, left = rng.integers(0, 25, 2)
        mask[top : top + rng.integers(4, 40), left : left + rng.integers(4, 60)] = True
    return masks_to_rles(masks)


def test_average_precision_of_known_overlaps_is_that_of_masks() -> None:
    rng = np.random.default_rng(0)
    expressions = [
        Expression(SIZE, rectangles(rng, 1)[0], rectangles(rng, 5), rng.random(5).round(1).tolist(), float(area))
        for area in rng.choice([500.0, 5000.0, 20000.0], 30)
    ]
    matches = [match_masks(one.results, one.scores, one.truth, SIZE, one.truth_area) for one in expressions]
    assert average_precision(matches) == mask_ap(expressions)


def test_crowds_are_no_misses_of_average_precision() -> None:
    rng = np.random.default_rng(1)
    pairs = [(rectangles(rng, 1)[0], rectangles(rng, 2)) for _ in range(4)]
    easy = [match_masks([truth], [0.9], truth, SIZE, None) for truth, _ in pairs]
    crowd = [match_masks(found, [0.3, 0.2], truth, SIZE, None, crowd=True) for truth, found in pairs]
    assert average_precision([*easy, *crowd]).ap50 == pytest.approx(1.0)


def test_boxes_are_scored_beside_masks() -> None:
    (truth, found) = rectangles(np.random.default_rng(2), 2)
    masks = match_masks([truth, found], [0.9, 0.1], truth, SIZE, None)
    boxes = match_boxes([(0.0, 0.0, 4.0, 4.0), (2.0, 0.0, 6.0, 4.0)], [0.1, 0.9], (0.0, 0.0, 4.0, 4.0))
    row = PictureRow("refcoco", "val", "v", "1", "a cat", "v", "1", masks, boxes, (False, True, True))
    found = figures([row])
    assert found["mean_iou"] == pytest.approx(1.0)
    assert found["box mean_iou"] == pytest.approx(8 / 24)
    assert found["box mAP"] == pytest.approx(0.5)
    assert [found[f"box precision@{k}"] for k in (1, 5, 10)] == [0.0, 1.0, 1.0]


def test_among_equal_scores_pictures_go_by_the_number_of_their_result() -> None:
    (truth, other) = rectangles(np.random.default_rng(3), 2)
    right, wrong = (match_masks([one], [0.5], truth, SIZE, None) for one in (truth, other))
    rows = [PictureRow("refcoco", "val", "v", n, "", "", n, m) for n, m in (("10", wrong), ("9", right))]
    assert figures(rows) == figures(rows[::-1])
    assert figures(rows)["AP50"] == pytest.approx(average_precision([right, wrong]).ap50)
    assert average_precision([right, wrong]) != average_precision([wrong, right])
