"""Scores at single frames, with all candidates of an expression: A2D, JHMDB (masks), RefCOCO (masks and boxes)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask
from jaxtyping import Float

from pipelines.predictions import Prediction
from pipelines.records import Expression
from pipelines.scoring.attributes import attributes_of
from pipelines.scoring.rows import Match, PictureRow
from pipelines.scoring.tracks import check_size
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.frame_ids import frame_id
from sgmg.masks import Size, rle_area, rle_to_coco, rle_union
from sgmg.referring import Overlap, best_candidate, box_hits, box_overlap, mask_overlap

_coco: Any = pycocotools.mask  # its type hints know no RLE of plain dicts

Box = tuple[float, float, float, float]
"""xyxy in pixels."""


def missing_pictures(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[str]:
    """Returns messages that name the expressions and frames without a prediction.

    Raises:
        ValueError: a prediction is given twice, or at another size.
    """
    index = _index(truth, predictions)
    missing: list[str] = []
    for expression in truth.labelled_expressions:
        names = [truth.frame_names[frame] for frame in truth.scored_frames(expression)]
        absent = [name for name in names if (expression.id, name) not in index]
        if len(absent) == len(names):
            missing.append(f"video {truth.video}, expression {expression.id}")
        else:
            missing += [f"video {truth.video}, expression {expression.id}, frame {name}" for name in absent]
    return missing


def score_pictures(
    truth: VideoTruth, predictions: Sequence[Prediction], *, with_boxes: bool = False
) -> list[PictureRow]:
    """Scores a video: one row per expression and frame. A missing prediction counts as one empty candidate.

    Raises:
        ValueError: a prediction is given twice or at another size, or an RLE is damaged.
    """
    index = _index(truth, predictions)
    rows: list[PictureRow] = []
    for expression in truth.labelled_expressions:
        for frame in truth.scored_frames(expression):
            found = index.get((expression.id, truth.frame_names[frame]))
            try:
                rows.append(_row(truth, expression, frame, found, with_boxes))
            except ValueError as error:
                name = truth.frame_names[frame]
                raise ValueError(f"{truth.video}, expression {expression.id}, frame {name}: {error}") from error
    return rows


def match_masks(
    results: Sequence[str], scores: Sequence[float], truth: str, size: Size, area: float | None, crowd: bool = False
) -> Match:
    """Matches candidate masks with the true mask, all of height, width `size`. Areas default to pixel counts."""
    coco = [rle_to_coco(rle, size) for rle in results]
    overlaps = _coco.iou(coco, [rle_to_coco(truth, size)], [int(crowd)])
    areas = [float(rle_area(rle, size)) for rle in results]
    truth_area = float(rle_area(truth, size)) if area is None else area
    return _match(mask_overlap(results, truth, size), scores, overlaps, areas, truth_area, crowd)


def match_boxes(
    results: Sequence[Box], scores: Sequence[float], truth: Box, area: float | None, crowd: bool = False
) -> Match:
    """Matches candidate boxes with the true box.

    Args:
        area: of the annotation, in pixels, by which COCO calls it small, medium or large; by default that of its box.
    """
    xywh = [_xywh(box) for box in results]
    overlaps = _coco.iou(np.array(xywh), np.array([_xywh(truth)]), [int(crowd)])
    overlap = box_overlap(np.array(results), np.array(truth))
    areas = [width * height for _, _, width, height in (*xywh, _xywh(truth))]
    return _match(overlap, scores, overlaps, areas[:-1], areas[-1] if area is None else area, crowd)


def _match(
    overlap: Overlap,
    scores: Sequence[float],
    overlaps: Float[np.ndarray, "q 1"],
    areas: Sequence[float],
    area: float,
    crowd: bool,
) -> Match:
    best = best_candidate(np.array(scores))
    return Match(
        float(overlap.intersection[best]),
        float(overlap.union[best]),
        float(overlap.iou[best]),
        tuple(overlaps[:, 0].tolist()),
        tuple(float(score) for score in scores),
        tuple(areas),
        area,
        crowd,
    )


def _row(
    truth: VideoTruth, expression: Expression, frame: int, found: tuple[Prediction, int] | None, with_boxes: bool
) -> PictureRow:
    rles, boxes, scores = [rle_union([], truth.size)], [(0.0, 0.0, 0.0, 0.0)], [0.0]
    if found is not None:
        prediction, frame_index = found
        rles = [query.rle[frame_index] for query in prediction.queries]
        boxes = [query.boxes[frame_index] for query in prediction.queries]
        scores = [query.scores[frame_index] for query in prediction.queries]
    true_rle = truth.rle(expression, frame)
    assert true_rle is not None  # scored only where it is annotated
    tracks = [truth.objects[number] for number in expression.targets]
    alone = tracks[0] if len(tracks) == 1 else None
    crowd = any(track.iscrowd for track in tracks)
    area = alone.area[frame] if alone is not None and alone.area is not None else None
    name = truth.frame_names[frame]
    box = alone.boxes[frame] if alone is not None and alone.boxes is not None else None
    if with_boxes and box is None:
        raise ValueError("the truth has no box. Prepare the data again.")
    return PictureRow(
        truth.dataset,
        truth.split,
        truth.video,
        expression.id,
        expression.text,
        name,
        _result_name(expression, name),
        match_masks(rles, scores, true_rle, truth.size, area, crowd),
        match_boxes(boxes, scores, box, area, crowd) if with_boxes and box is not None else None,
        hit_ranks(boxes, scores, box) if with_boxes and box is not None else None,
        attributes_of(truth, expression.text, expression.targets, [frame]),
    )


def hit_ranks(boxes: Sequence[Box], scores: Sequence[float], truth: Box) -> tuple[bool, ...]:
    """Returns whether one of the 1, 5, 10 highest-scored boxes has a gIoU of at least 0.5 with the true box."""
    return tuple(box_hits(np.array(boxes), np.array(scores), np.array(truth)).tolist())


def _index(truth: VideoTruth, predictions: Sequence[Prediction]) -> dict[tuple[str, str], tuple[Prediction, int]]:
    """Maps (expression, frame name) to its prediction and the frame's index in it."""
    index: dict[tuple[str, str], tuple[Prediction, int]] = {}
    for prediction in predictions:
        check_size(truth, prediction)
        for frame_index, name in enumerate(prediction.frame_names):
            if index.setdefault((prediction.expression, name), (prediction, frame_index))[0] is not prediction:
                raise ValueError(
                    f"{truth.video}, expression {prediction.expression}, is predicted twice at frame {name}. Give the "
                    f"predictions of one run."
                )
    return index


def _result_name(expression: Expression, frame: str) -> str:
    external = expression.external_id
    return frame_id(external, frame) if external and "{frame}" in external else external or expression.id


def _xywh(box: Box) -> Box:
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1
