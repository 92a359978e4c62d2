"""Scores of expressions about single frames: A2D, JHMDB and RefCOCO (spec data 5).

An expression has q candidates, one per query, each with a score. `mask_overlap`, `box_overlap` and `box_hits` score one
expression, possibly on several workers; `overlap_scores`, `box_precision` and `mask_ap` aggregate them.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sgmg.boxes import OVERLAP_EPS, generalized_iou
from sgmg.masks import Size, rle_area, rle_shared_areas, rle_to_coco

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU thresholds K of precision@K."""

RANKS = (1, 5, 10)
"""Numbers of candidates k of box precision at k."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Intersection and union of n pairs, in pixels. Parity: 32 bits, so that IoU equals the published one exactly."""

    intersection: Float32[np.ndarray, " n"]
    union: Float32[np.ndarray, " n"]

    @property
    def iou(self) -> Float32[np.ndarray, " n"]:
        """Intersection over union; 1 if both are empty."""
        epsilon = np.float32(OVERLAP_EPS)
        return (self.intersection + epsilon) / (self.union + epsilon)


@dataclass(frozen=True, slots=True)
class OverlapScores:
    """Scores of a benchmark over its expressions, each with its best candidate."""

    precision: tuple[float, ...]  # at .5, .6, .7, .8, .9
    mean_iou: float
    overall_iou: float


@dataclass(frozen=True, slots=True)
class Expression:
    """True mask and candidates of one expression, as RLEs of (height, width) `size`, for COCO's scores.

    Areas classify objects as small, medium or large; None takes the pixels of the masks. Parity: the published RefCOCO
    results use x2·y2 of their xyxy boxes; pass these as `result_areas` to reproduce its three scores by size.
    """

    size: Size
    truth: str
    results: Sequence[str]
    scores: Sequence[float]
    truth_area: float | None = None
    result_areas: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_count("scores", len(self.scores), len(self.results))
        if self.result_areas is not None:
            _check_count("areas", len(self.result_areas), len(self.results))


@dataclass(frozen=True, slots=True)
class MaskAP:
    """COCO's average precision of masks; -1 if no true mask has that size."""

    ap: float  # over .5, .55 … .95
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float


def mask_overlap(results: Sequence[str], truth: str, size: Size) -> Overlap:
    """Computes the overlap of every result with the ground truth, from RLEs without decoding them.

    >>> mask_overlap(["4", "22"], "13", (2, 2))
    Overlap(intersection=array([0., 2.], dtype=float32), union=array([3., 3.], dtype=float32))

    Raises:
        ValueError: an RLE is damaged or belongs to a frame of another size.
    """
    both = rle_shared_areas(results, truth, size)
    total = np.array([rle_area(result, size) for result in results]) + rle_area(truth, size)
    return Overlap(both.astype(np.float32), (total - both).astype(np.float32))


def box_overlap(results: Float[np.ndarray, "q 4"], truth: Float[np.ndarray, " 4"]) -> Overlap:
    """Computes the overlap of every result with the ground truth; boxes are xyxy in pixels, last corner exclusive."""
    results, truth = results.astype(np.float32), truth.astype(np.float32)
    sides = np.minimum(results[:, 2:], truth[2:]) - np.maximum(results[:, :2], truth[:2])
    both = sides.clip(min=0).prod(axis=1)
    return Overlap(both, (results[:, 2:] - results[:, :2]).prod(axis=1) + (truth[2:] - truth[:2]).prod() - both)


def best_candidate(scores: Float[np.ndarray, " q"]) -> int:
    """Returns the candidate with the highest score; among equal ones the last listed.

    >>> best_candidate(np.array([0.2, 0.9, 0.9, 0.1]))
    2
    """
    return int(_ranking(scores)[0])


def overlap_scores(chosen: Overlap) -> OverlapScores:
    """Computes precision at K, mean IoU and overall IoU of n expressions from the overlaps of their best candidates.

    Raises:
        ValueError: there are no expressions.
    """
    iou = chosen.iou.astype(np.float64)
    if not iou.size:
        raise ValueError("There are no expressions to score. Check that results and truth name the same ones.")
    return OverlapScores(
        precision=tuple(float((iou > threshold).mean()) for threshold in THRESHOLDS),
        mean_iou=float(iou.mean()),
        overall_iou=float(chosen.intersection.sum(dtype=np.float64) / chosen.union.sum(dtype=np.float64)),
    )


def box_hits(
    boxes: Float[np.ndarray, "q 4"], scores: Float[np.ndarray, "..."], truth: Float[np.ndarray, " 4"]
) -> Bool[np.ndarray, " k"]:
    """Tells whether one of the 1, 5, 10 highest-scored xyxy boxes has a gIoU of at least 0.5 with the ground truth.

    Parity: among equal scores the box that is greater, coordinate by coordinate, comes first.

    Raises:
        ValueError: the numbers of scores and boxes differ.
    """
    _check_count("scores", len(scores), len(boxes))
    boxes = boxes.astype(np.float32)
    ranked = torch.from_numpy(boxes[np.lexsort((*boxes.T[::-1], scores))[::-1]])
    hits = (generalized_iou(ranked, torch.from_numpy(truth.astype(np.float32))) >= 0.5).numpy()
    return np.array([hits[:rank].any() for rank in RANKS])


def box_precision(hits: Bool[np.ndarray, "n k"]) -> tuple[float, ...]:
    """Computes box precision at 1, 5 and 10: the share of n expressions that were hit. Parity: sorted ascending.

    Raises:
        ValueError: there are no expressions.
    """
    if not hits.size:
        raise ValueError("There are no expressions to score. Check that results and truth name the same ones.")
    return tuple(sorted(hits.mean(axis=0).tolist()))


def mask_ap(expressions: Iterable[Expression]) -> MaskAP:
    """Computes COCO mask AP of all candidates of all expressions, ignoring categories. An expression is a COCO image.

    Raises:
        ValueError: there are no expressions or no candidates, or an RLE is damaged.
    """
    images: list[dict[str, object]] = []
    truths: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for number, expression in enumerate(expressions, start=1):
        images.append({"id": number, "height": expression.size[0], "width": expression.size[1]})
        truths.append(_annotation(number, expression, expression.truth, expression.truth_area))
        areas = [None] * len(expression.results) if expression.result_areas is None else expression.result_areas
        for rle, score, area in zip(expression.results, expression.scores, areas, strict=True):
            results.append({**_annotation(number, expression, rle, area), "score": float(score)})
    if not results:
        raise ValueError(f"{len(images)} expressions have no candidates to score. Check that predictions were read.")
    with redirect_stdout(io.StringIO()):  # pycocotools prints and has no switch
        evaluation = COCOeval(_coco(images, truths), _coco(images, results), iouType="segm")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return MaskAP(*(float(value) for value in evaluation.stats[:6]))


def _annotation(image: int, expression: Expression, rle: str, area: float | None) -> dict[str, object]:
    return {
        "image_id": image,
        "category_id": 1,
        "segmentation": rle_to_coco(rle, expression.size),
        "area": rle_area(rle, expression.size) if area is None else area,
        "iscrowd": 0,
    }


def _coco(images: list[dict[str, object]], annotations: list[dict[str, object]]) -> COCO:
    coco: Any = COCO()  # its type hints ask for fields that no score reads
    # Ids from 1: COCO takes a match with annotation 0 for no match.
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
    coco.dataset = {"info": {}, "images": images, "annotations": numbered, "categories": [{"id": 1}]}
    coco.createIndex()
    return coco


def _ranking(scores: Float[np.ndarray, " q"]) -> np.ndarray:
    """Sorts candidates by descending score; among equal ones the last listed comes first."""
    return np.argsort(scores, kind="stable")[::-1]


def _check_count(what: str, count: int, candidates: int) -> None:
    if count != candidates:
        raise ValueError(f"{candidates} candidates have {count} {what}. Give one per candidate.")
