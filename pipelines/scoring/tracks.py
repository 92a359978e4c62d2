"""J and F of every expression along its video: Ref-YouTube-VOS, MeViS, one's own data."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression
from pipelines.scoring.rows import TrackRow, track_row
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import Size, rle_to_mask
from sgmg.metrics import TrackScores, frame_statistics, outline, region_similarity

Results = dict[str, dict[str, str]]
"""Expression → frame name → RLE."""


def missing_tracks(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[str]:
    """The expressions and frames of a video that should be predicted and are not, in words.

    Raises:
        ValueError: something is predicted twice, or at another size.
    """
    results = track_results(truth, predictions)
    missing: list[str] = []
    for expression in truth.told:
        if expression.id not in results:
            missing.append(f"video {truth.video}, expression {expression.id}")
            continue
        names = [truth.frame_names[frame] for frame in truth.asked(expression)]
        there = results[expression.id]
        missing += [
            f"video {truth.video}, expression {expression.id}, frame {name}" for name in names if name not in there
        ]
    return missing


def score_tracks(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[TrackRow]:
    """A row an expression; what is not predicted counts as empty.

    One frame is in memory at a time, and each truth is drawn once for all expressions of the same objects.

    Raises:
        ValueError: something is predicted twice, at another size, or an RLE is damaged.
    """
    results = track_results(truth, predictions)
    asked = {expression.id: frozenset(truth.asked(expression)) for expression in truth.told}
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for frame, name in enumerate(truth.frame_names):
        by_objects: dict[tuple[int, ...], list[Expression]] = {}
        for expression in truth.told:
            if frame in asked[expression.id]:
                by_objects.setdefault(expression.object_ids, []).append(expression)
        for expressions in by_objects.values():
            wanted = truth.rle(expressions[0], frame)
            assert wanted is not None  # asked only where it is annotated
            found = {one.id: results.get(one.id, {}).get(name) for one in expressions}
            try:
                scores = _frame_scores(wanted, found, truth.size)
            except ValueError as error:
                raise ValueError(f"{truth.video}, frame {name}, {error}") from error
            for expression, score in scores.items():
                values[expression].append(score)
    return [_row(truth, expression, np.array(values[expression.id])) for expression in truth.told]


def track_results(truth: VideoTruth, predictions: Sequence[Prediction]) -> Results:
    """The chosen query of every expression, with segments joined.

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
    """The only query, or the one that fits best along the video."""
    return max(prediction.queries, key=lambda query: float(np.mean(query.scores)))


def check_size(truth: VideoTruth, prediction: Prediction) -> None:
    """Predictions are at the original size, and so must be the truth.

    Raises:
        ValueError: they are not of one size.
    """
    if (prediction.height, prediction.width) != truth.size:
        raise ValueError(
            f"{truth.video}: predictions are of height, width {(prediction.height, prediction.width)}, the truth of "
            f"{truth.size}. Score by data prepared at the original size (jobs/prepare.py without --short-side, into "
            f"another --out; predict nothing again), and check that it is the same video."
        )


def _frame_scores(truth: str, results: Mapping[str, str | None], size: Size) -> dict[str, tuple[float, float]]:
    """J and F of every expression's result in one frame.

    Raises:
        ValueError: an RLE is damaged; the message tells whose.
    """
    wanted = _mask("the truth", truth, size)
    line = outline(wanted)
    scores: dict[str, tuple[float, float]] = {}
    for expression, rle in results.items():
        found = _mask(f"expression {expression}", rle, size)
        (j,) = region_similarity(found[None], wanted[None])
        scores[expression] = (float(j), outline(found).f_measure(line))
    return scores


def _mask(what: str, rle: str | None, size: Size) -> Bool[np.ndarray, "h w"]:
    try:
        return np.zeros(size, dtype=np.bool_) if rle is None else rle_to_mask(rle, size)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _row(truth: VideoTruth, expression: Expression, values: np.ndarray) -> TrackRow:
    j, f = frame_statistics(values[:, 0]), frame_statistics(values[:, 1])
    return track_row(
        TrackScores(truth.video, j, f),
        len(values),
        "expression",
        annotator=expression.annotator,
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression.id,
        text=expression.text,
    )
