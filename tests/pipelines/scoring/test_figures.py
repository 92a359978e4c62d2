import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

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
    boxes = match_boxes([(0.0, 0.0, 4.0, 4.0), (2.0, 0.0, 6.0, 4.0)], [0.1, 0.9], (0.0, 0.0, 4.0, 4.0), None)
    row = PictureRow("refcoco", "val", "v", "1", "a cat", "v", "1", masks, boxes, (False, True, True))
    found = figures([row])
    assert found["mean_iou"] == pytest.approx(1.0)
    assert found["box mean_iou"] == pytest.approx(8 / 24)
    assert found["box mAP"] == pytest.approx(0.5)
    assert [found[f"box precision@{k}"] for k in (1, 5, 10)] == [0.0, 1.0, 1.0]


def test_boxes_are_small_or_large_by_the_area_of_their_annotation() -> None:
    box = (0.0, 0.0, 40.0, 40.0)  # 1 600 pixels; COCO calls up to 1 024 small
    for area, small, medium in ((900.0, 1.0, -1.0), (None, -1.0, 1.0)):
        found = average_precision([match_boxes([box], [0.9], box, area)])
        assert (found.small, found.medium) == (pytest.approx(small), pytest.approx(medium))


def test_average_precision_of_boxes_by_size_is_that_of_cocos_own_code(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    xywh = [(float(x), float(y), float(w), float(h)) for x, y, w, h in rng.integers(20, 80, (40, 4))]
    areas = [w * h * share for (_, _, w, h), share in zip(xywh, rng.uniform(0.2, 1.0, 40), strict=True)]
    found = [[(x + dx, y + dy, w + 4, h) for dx, dy in rng.integers(-9, 9, (3, 2)).tolist()] for x, y, w, h in xywh]
    scores = rng.permutation(120).reshape(40, 3) / 120
    boxed = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0}
        for n, (box, area) in enumerate(zip(xywh, areas, strict=True), start=1)
    ]
    results = [
        {"image_id": n, "category_id": 1, "bbox": box, "score": score}
        for n, (some, of) in enumerate(zip(found, scores.tolist(), strict=True), start=1)
        for box, score in zip(some, of, strict=True)
    ]
    dataset = {"images": [{"id": n} for n in range(1, 41)], "annotations": boxed, "categories": [{"id": 1}]}
    for name, content in (("truth", dataset), ("results", results)):
        (tmp_path / name).write_text(json.dumps(content))
    with redirect_stdout(io.StringIO()):
        known = COCO(str(tmp_path / "truth"))
        official = COCOeval(known, known.loadRes(str(tmp_path / "results")), "bbox")
        official.evaluate()
        official.accumulate()
        official.summarize()
    ours = average_precision(
        [
            match_boxes([corners(one) for one in some], of, corners(box), area)
            for some, of, box, area in zip(found, scores.tolist(), xywh, areas, strict=True)
        ]
    )
    assert [ours.small, ours.medium, ours.large] == pytest.approx(official.stats[3:6], abs=1e-12)
    by_box = average_precision(
        [
            match_boxes([corners(one) for one in some], of, corners(box), None)
            for some, of, box in zip(found, scores.tolist(), xywh, strict=True)
        ]
    )
    assert abs(by_box.small - ours.small) > 0.01, "the area of the box is another figure"


def corners(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def test_among_equal_scores_pictures_go_by_the_number_of_their_result() -> None:
    (truth, other) = rectangles(np.random.default_rng(3), 2)
    right, wrong = (match_masks([one], [0.5], truth, SIZE, None) for one in (truth, other))
    rows = [PictureRow("refcoco", "val", "v", n, "", "", n, m) for n, m in (("10", wrong), ("9", right))]
    assert figures(rows) == figures(rows[::-1])
    assert figures(rows)["AP50"] == pytest.approx(average_precision([right, wrong]).ap50)
    assert average_precision([right, wrong]) != average_precision([wrong, right])
