"""Baselines that any model should beat: the whole frame, and the mean box of the training truth."""

from collections.abc import Iterable

import numpy as np

from pipelines.predictions import Prediction, QueryTrack
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import Size, mask_to_rle, rle_to_xywh

UnitBox = tuple[float, float, float, float]
"""xyxy as shares of width and height."""

WHOLE_FRAME: UnitBox = (0.0, 0.0, 1.0, 1.0)


def mean_box(truths: Iterable[VideoTruth]) -> UnitBox:
    """Returns the mean box of the objects of all expressions, over the frames that show them, usually of training data.

    Raises:
        ValueError: no frame shows an object.
    """
    total, count = np.zeros(4), 0
    for truth in truths:
        height, width = truth.size
        for expression in truth.labelled_expressions:
            for frame in truth.scored_frames(expression):
                x, y, w, h = rle_to_xywh(truth.rle(expression, frame) or "", truth.size)
                if w and h:
                    total += np.array([x / width, y / height, (x + w) / width, (y + h) / height])
                    count += 1
    if not count:
        raise ValueError("No frame shows an object that is spoken of. Give truths that are not withheld.")
    x1, y1, x2, y2 = (total / count).tolist()
    return x1, y1, x2, y2


def box_everywhere(truth: VideoTruth, box: UnitBox, name: str) -> list[Prediction]:
    """Predicts one box for every expression in every scored frame; `name` becomes their fingerprint."""
    rle, corners = _box_mask(box, truth.size)
    height, width = truth.size
    predictions: list[Prediction] = []
    for expression in truth.labelled_expressions:
        names = tuple(truth.frame_names[frame] for frame in truth.scored_frames(expression))
        t = len(names)
        predictions.append(
            Prediction(
                dataset=truth.dataset,
                split=truth.split,
                video=truth.video,
                expression=expression.id,
                text=expression.text,
                width=width,
                height=height,
                frame_names=names,
                queries=(QueryTrack((rle,) * t, (corners,) * t, (1.0,) * t),),
                score=1.0,
                fingerprint=name,
                source=name,
                source_fingerprint="",
                external_id=expression.external_id,
                annotator=expression.annotator,
            )
        )
    return predictions


def whole_frame(truth: VideoTruth) -> list[Prediction]:
    """Predicts all pixels of the frame for every expression."""
    return box_everywhere(truth, WHOLE_FRAME, "whole frame")


def _box_mask(box: UnitBox, size: Size) -> tuple[str, tuple[float, float, float, float]]:
    height, width = size
    x1, y1, x2, y2 = (round(share * side) for share, side in zip(box, (width, height, width, height), strict=True))
    mask = np.zeros(size, dtype=np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask_to_rle(mask), (float(x1), float(y1), float(x2), float(y2))
