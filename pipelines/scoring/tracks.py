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


def score_tracks(truth: VideoTruth, predictions: Sequence[Prediction]) -> list[TrackRow]:
    """Scores a video: one row per expression. Missing predictions count as empty.

    Decodes one frame at a time, and each true mask once for all expressions about the same objects.

    Raises:
        ValueError: a prediction is given twice or at another size, or an RLE is damaged.
    """
    results = track_results(truth, predictions)
    scored = {expression.id: frozenset(truth.scored_frames(expression)) for expression in truth.labelled_expressions}
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in scored}
    for frame, name in enumerate(truth.frame_names):
        by_objects: dict[tuple[int, ...], list[Expression]] = {}
        for expression in truth.labelled_expressions:
            if frame in scored[expression.id]:
                by_objects.setdefault(expression.object_ids, []).append(expression)
        for expressions in by_objects.values():
            true_rle = truth.rle(expressions[0], frame)
            assert true_rle is not None  # scored only where it is annotated
            found = {one.id: results.get(one.id, {}).get(name) for one in expressions}
            try:
                scores = _frame_scores(true_rle, found, truth.size)
            except ValueError as error:
                raise ValueError(f"{truth.video}, frame {name}, {error}") from error
            for expression, score in scores.items():
                values[expression].append(score)
    return [_row(truth, expression, np.array(values[expression.id])) for expression in truth.labelled_expressions]


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


def _frame_scores(truth: str, results: Mapping[str, str | None], size: Size) -> dict[str, tuple[float, float]]:
    """Computes J and F of every expression's result in one frame.

    Raises:
        ValueError: an RLE is damaged; the message names the expression.
    """
    true_mask = _mask("the truth", truth, size)
    line = outline(true_mask)
    scores: dict[str, tuple[float, float]] = {}
    for expression, rle in results.items():
        found = _mask(f"expression {expression}", rle, size)
        (j,) = region_similarity(found[None], true_mask[None])
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
