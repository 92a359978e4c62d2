"""The figures that papers print, computed from rows; each a fraction of 1."""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.scoring.benchmark_figures import Figures, further_figures, headline_figures, lacks_a_kind
from pipelines.scoring.rows import Match, PictureRow, Row, TrackRow
from sgmg.metrics import TotalScores, total_scores
from sgmg.referring import RANKS, THRESHOLDS, MaskAP, Overlap, box_precision, overlap_scores

_log = logging.getLogger(__name__)


def figures(rows: Sequence[Row]) -> Figures:
    """Computes a benchmark's figures from its rows, in any order; the figure that papers print stands first.

    Tracks: J&F, J, F, their recall and decay, none of them for sentences of one kind alone of a benchmark whose J&F is
    the mean of two; for DAVIS the mean over annotators, the same of each, and strict-id.
    Pictures: mAP and its parts, P@K, mean_iou, overall_iou; where there are boxes the same of them, called "box …".

    Raises:
        ValueError: there are no rows, or track and picture rows are mixed.
    """
    tracks = [row for row in rows if isinstance(row, TrackRow)]
    pictures = [row for row in rows if isinstance(row, PictureRow)]
    if not rows or (tracks and pictures):
        raise ValueError(
            f"{len(tracks)} tracks and {len(pictures)} pictures have no figures together. Score one benchmark, and "
            f"check that results and truth name the same videos."
        )
    return track_figures(tracks) if tracks else picture_figures(pictures)


def track_figures(rows: Sequence[TrackRow]) -> Figures:
    """Computes J&F, J, F and their parts of expressions, or of DAVIS objects per annotator and their mean."""
    found: Figures = {}
    for protocol in ("expression", "unsupervised", "strict-id"):
        of_protocol = sorted((row for row in rows if row.protocol == protocol), key=_track_order)
        if not of_protocol or (protocol == "strict-id" and not _all_strict(rows)):
            continue
        prefix = "strict-id " if protocol == "strict-id" else ""
        if protocol == "expression":
            dataset = of_protocol[0].dataset
            first, further = headline_figures(dataset, of_protocol), further_figures(dataset, of_protocol)
            lacking = lacks_a_kind(dataset, of_protocol)
            plain = {} if lacking else _totals(total_scores(row.scores for row in of_protocol))
            found |= first | plain | first | further
            continue
        annotators = sorted({row.annotator or 0 for row in of_protocol})
        parts = [
            _totals(total_scores(row.scores for row in of_protocol if (row.annotator or 0) == annotator))
            for annotator in annotators
        ]
        found |= {f"{prefix}{name}": float(np.mean([part[name] for part in parts])) for name in parts[0]}
        if protocol == "unsupervised" and len(annotators) > 1:
            found |= {f"J&F annotator {who}": part["J&F"] for who, part in zip(annotators, parts, strict=True)}
    return found


def picture_figures(rows: Sequence[PictureRow]) -> Figures:
    """Computes mAP, P@K, mean and overall IoU of masks; of boxes too if all rows have them."""
    rows = sorted(rows, key=lambda row: row.order)  # among equal scores COCO goes by the order of pictures
    found = _match_figures([row.masks for row in rows])
    boxes = [row.boxes for row in rows if row.boxes is not None]
    if boxes and len(boxes) == len(rows):
        found |= {f"box {name}": value for name, value in _match_figures(boxes).items()}
        hits = np.array([row.hits for row in rows])
        found |= {f"box precision@{k}": value for k, value in zip(RANKS, box_precision(hits), strict=True)}
    return found


def average_precision(matches: Sequence[Match]) -> MaskAP:
    """Computes COCO's average precision, ignoring categories, from given IoUs; one match per picture.

    Raises:
        ValueError: there are no matches.
    """
    if not matches:
        raise ValueError("There are no candidates to score. Check that results and truth name the same ones.")
    images = [{"id": number} for number in range(1, len(matches) + 1)]
    truths = [
        {"image_id": number, "area": match.truth_area, "iscrowd": int(match.crowd), "bbox": number}
        for number, match in enumerate(matches, start=1)
    ]
    results = [
        {"image_id": number, "area": area, "iscrowd": 0, "bbox": overlap, "score": score}
        for number, match in enumerate(matches, start=1)
        for overlap, area, score in zip(match.overlaps, match.areas, match.scores, strict=True)
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools prints and has no switch
        evaluation = _KnownOverlaps(_coco(images, truths), _coco(images, results), iouType="bbox")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return MaskAP(*(float(value) for value in evaluation.stats[:6]))


def metric_name(figure: str) -> str:
    """Returns a figure's name in MLflow, which allows none of & @ and +.

    >>> metric_name("strict-id J&F"), metric_name("P@0.5")
    ('strict-id_J_and_F', 'P_at_0.5')
    """
    return figure.replace("&", "_and_").replace("@", "_at_").replace("+", "_plus").replace(" ", "_")


class _KnownOverlaps(COCOeval):
    """COCO's matching and averaging on given overlaps, which candidates carry in place of their box."""

    _dts: dict[tuple[int, int], list[dict[str, Any]]]

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: ARG002 (categories are ignored)
        candidates = self._dts[imgId, 1]
        order = np.argsort([-one["score"] for one in candidates], kind="mergesort")[: self.params.maxDets[-1]]
        return np.array([[candidates[place]["bbox"]] for place in order])


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    coco: Any = COCO()  # its type hints ask for fields that no score reads
    # Ids from 1: COCO takes a match with annotation 0 for no match.
    numbered = [{"id": number, "category_id": 1, **one} for number, one in enumerate(annotations, start=1)]
    coco.dataset = {"info": {}, "images": images, "annotations": numbered, "categories": [{"id": 1}]}
    coco.createIndex()
    return coco


def _match_figures(matches: Sequence[Match]) -> Figures:
    ap = average_precision(matches)
    chosen = Overlap(
        np.array([match.intersection for match in matches], dtype=np.float32),
        np.array([match.union for match in matches], dtype=np.float32),
    )
    scores = overlap_scores(chosen)
    return {
        "mAP": ap.ap,
        "mean_iou": scores.mean_iou,
        "overall_iou": scores.overall_iou,
        **{f"P@{k}": value for k, value in zip(THRESHOLDS, scores.precision, strict=True)},
        "AP50": ap.ap50,
        "AP75": ap.ap75,
        "AP small": ap.small,
        "AP medium": ap.medium,
        "AP large": ap.large,
    }


def _totals(totals: TotalScores) -> Figures:
    return {
        "J&F": totals.jf_mean,
        "J": totals.j.mean,
        "F": totals.f.mean,
        "J recall": totals.j.recall,
        "J decay": totals.j.decay,
        "F recall": totals.f.recall,
        "F decay": totals.f.decay,
    }


def _all_strict(rows: Sequence[TrackRow]) -> bool:
    """Returns whether every unsupervised sequence has strict-id scores too; a mean of some of them would mislead."""
    pairs = {
        protocol: {(row.video, row.annotator) for row in rows if row.protocol == protocol}
        for protocol in ("unsupervised", "strict-id")
    }
    if without := sorted(video for video, _ in pairs["unsupervised"] - pairs["strict-id"]):
        _log.warning(
            "strict-id is left out: results of %d sequences (the first is %s) hold ids that the truth has not, or "
            "there are fewer than 3 frames",
            len(without),
            without[0],
        )
    return not without


def _track_order(row: TrackRow) -> tuple[str, int, int, str]:
    return row.video, row.annotator or 0, row.truth_id, row.expression
