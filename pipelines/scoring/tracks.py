"""J and F of every expression along its video: Ref-YouTube-VOS, MeViS, one's own data."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression
from pipelines.scoring.attributes import attributes_of
from pipelines.scoring.rows import TrackRow, track_row
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.vots import IGNORED
from sgmg.masks import Size, rle_area, rle_to_mask, rle_union
from sgmg.metrics import TrackScores, frame_statistics, outline, region_similarity

Results = dict[str, dict[str, str]]
"""Expression → frame name → RLE."""

NotPredicted = Literal["any frame", "first frame", "every frame"]
"""What has to be missing for an expression to score 0, whether or not its target is there."""


def missing_tracks(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[str]:
    """Returns messages that name the expressions and frames of a video without a prediction.

    Raises:
        ValueError: a prediction is given twice, or at another size.
    """
    results = track_results(truth, predictions)
    missing: list[str] = []
    for expression in truth.labelled_expressions:
        if expression.id not in results:
            missing.append(f"video {truth.video}, expression {expression.id}")
            continue
        names = [truth.frame_names[frame] for frame in truth.scored_frames(expression)]
        predicted = results[expression.id]
        missing += [
            f"video {truth.video}, expression {expression.id}, frame {name}" for name in names if name not in predicted
        ]
    return missing


def score_tracks(
    truth: VideoTruth, predictions: Sequence[Prediction], *, zero_without: NotPredicted | None = None
) -> list[TrackRow]:
    """Scores a video: one row per expression. Missing predictions count as empty.

    Decodes one frame at a time, and each true mask once for all expressions about the same objects.

    Args:
        zero_without: frames that an expression scores 0 without, also where its target is not there.

    Raises:
        ValueError: a prediction is given twice or at another size, or an RLE is damaged.
    """
    results = track_results(truth, predictions)
    scored = {expression.id: frozenset(truth.scored_frames(expression)) for expression in truth.labelled_expressions}
    scores: dict[str, list[FrameScore]] = {name: [] for name in scored}
    for frame, name in enumerate(truth.frame_names):
        by_objects: dict[tuple[int, ...], list[Expression]] = {}
        for expression in truth.labelled_expressions:
            if frame in scored[expression.id]:
                by_objects.setdefault(expression.targets, []).append(expression)
        left_out, objects = _ignored(truth, frame), _objects_area(truth, frame)
        for expressions in by_objects.values():
            true_rle = truth.rle(expressions[0], frame)
            assert true_rle is not None  # scored only where it is annotated
            found = {one.id: results.get(one.id, {}).get(name) for one in expressions}
            try:
                of_frame = _frame_scores(true_rle, found, truth.size, left_out, objects)
            except ValueError as error:
                raise ValueError(f"{truth.video}, frame {name}, {error}") from error
            for expression, score in of_frame.items():
                scores[expression].append(score)
    rows = [_row(truth, expression, scores[expression.id]) for expression in truth.labelled_expressions]
    names = {id: [truth.frame_names[frame] for frame in sorted(frames)] for id, frames in scored.items()}
    return [
        _zero(row) if _is_without(zero_without, names[row.expression], results.get(row.expression, ())) else row
        for row in rows
    ]


def track_results(truth: VideoTruth, predictions: Sequence[Prediction]) -> Results:
    """Returns the chosen query of every expression, segments joined.

    Raises:
        ValueError: an expression is predicted twice, or at another size than the truth.
    """
    results: Results = {}
    for prediction in predictions:
        check_size(truth, prediction)
        track = results.setdefault(prediction.expression, {})
        if twice := sorted(set(track) & set(prediction.frame_names)):
            raise ValueError(
                f"{truth.video}, expression {prediction.expression}, is predicted twice at frame {twice[0]}. Give the "
                f"predictions of one run."
            )
        track.update(zip(prediction.frame_names, chosen_query(prediction).rle, strict=True))
    return results


def chosen_query(prediction: Prediction) -> QueryTrack:
    """Returns the only query, or the one with the best mean score along the video."""
    return max(prediction.queries, key=lambda query: float(np.mean(query.scores)))


def check_size(truth: VideoTruth, prediction: Prediction) -> None:
    """Checks that prediction and truth have the same, original size.

    Raises:
        ValueError: the sizes differ.
    """
    if (prediction.height, prediction.width) != truth.size:
        raise ValueError(
            f"{truth.video}: predictions are of height, width {(prediction.height, prediction.width)}, the truth of "
            f"{truth.size}. Score by data prepared at the original size (jobs/prepare.py without --short-side, into "
            f"another --out; predict nothing again), and check that it is the same video."
        )


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Scores of one expression in one frame; whether the truth shows its target, and the result anything."""

    j: float
    f: float
    shown: bool
    found: bool
    robustness: float | None


def _frame_scores(
    truth: str,
    results: Mapping[str, str | None],
    size: Size,
    left_out: Bool[np.ndarray, "h w"] | None,
    objects: int | None,
) -> dict[str, FrameScore]:
    """Computes the scores of every expression's result in one frame.

    Args:
        left_out: pixels that do not count.
        objects: number of pixels of all objects of the video, where robustness is wanted.

    Raises:
        ValueError: an RLE is damaged; the message names the expression.
    """
    true_mask = _mask("the truth", truth, size, left_out)
    line, shown = outline(true_mask), bool(true_mask.any())
    scores: dict[str, FrameScore] = {}
    for expression, rle in results.items():
        found = _mask(f"expression {expression}", rle, size, left_out)
        (j,) = region_similarity(found[None], true_mask[None])
        robustness = None
        if objects is not None:
            robustness = max(1 - np.count_nonzero(found & ~true_mask) / (objects + 1e-6), 0.0)
        scores[expression] = FrameScore(float(j), outline(found).f_measure(line), shown, bool(found.any()), robustness)
    return scores


def _ignored(truth: VideoTruth, frame: int) -> Bool[np.ndarray, "h w"] | None:
    """Returns the pixels of a frame that do not count (VOTS), if there are any."""
    if truth.dataset != "vots":
        return None
    rles = [rle for track in truth.objects.values() if track.category == IGNORED and (rle := track.rle[frame])]
    return rle_to_mask(rle_union(rles, truth.size), truth.size) if rles else None


def _objects_area(truth: VideoTruth, frame: int) -> int | None:
    """Returns the number of pixels of all objects, by which ReVOS measures false ones."""
    if truth.dataset != "revos":
        return None
    rles = [rle for track in truth.objects.values() if (rle := track.rle[frame])]
    return rle_area(rle_union(rles, truth.size), truth.size)


def _mask(what: str, rle: str | None, size: Size, left_out: Bool[np.ndarray, "h w"] | None) -> Bool[np.ndarray, "h w"]:
    try:
        mask = np.zeros(size, dtype=np.bool_) if rle is None else rle_to_mask(rle, size)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    return mask if left_out is None else mask & ~left_out


def _is_without(frames: NotPredicted | None, names: Sequence[str], predicted: Container[str]) -> bool:
    """Returns whether those of the scored frames, given by name, are not predicted."""
    if frames == "first frame":
        return names[0] not in predicted
    missing = [name not in predicted for name in names]
    return any(missing) if frames == "any frame" else frames is not None and all(missing)


def _zero(row: TrackRow) -> TrackRow:
    names = ("j", "j_recall", "j_decay", "f", "f_recall", "f_decay", "t_iou", "v_iou")
    wrong = row.attributes is not None and not row.attributes.visible  # no answer is no right one
    robustness = None if row.robustness is None else 0.0
    return replace(row, **dict.fromkeys(names, 0.0), robustness=robustness, found=wrong)


def _row(truth: VideoTruth, expression: Expression, scores: Sequence[FrameScore]) -> TrackRow:
    j, f = (frame_statistics(np.array(values)) for values in zip(*((one.j, one.f) for one in scores), strict=True))
    either = sum(one.shown or one.found for one in scores)
    both = [one.j for one in scores if one.shown and one.found]
    robustness = [one.robustness for one in scores if one.robustness is not None]
    row = track_row(
        TrackScores(truth.video, j, f),
        len(scores),
        "expression",
        annotator=expression.annotator,
        attributes=attributes_of(truth, expression.text, expression.targets, truth.scored_frames(expression)),
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression.id,
        text=expression.text,
    )
    return replace(
        row,
        kind=expression.kind,
        length=len(truth.frame_names),
        found=any(one.found for one in scores),
        t_iou=len(both) / either if either else 1.0,
        v_iou=sum(both) / either if either else 1.0,
        robustness=float(np.mean(robustness)) if robustness else None,
    )
