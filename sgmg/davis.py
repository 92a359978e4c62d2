"""The two protocols of DAVIS 2017 on index maps, one sequence at a time (spec data 5, Ref-DAVIS).

An index map holds the id of an object at each pixel, 0 for background; in the truth, 255 is void. The rows of all
sequences, whoever scored them, go to `sgmg.metrics.total_scores`; the figure of the paper is the mean of the J&F so
found for its four annotators.
"""

import numpy as np
from jaxtyping import Float, Integer
from scipy.optimize import linear_sum_assignment

from sgmg.metrics import TrackScores, frame_statistics, outline

MOST_OBJECTS = 20
"""Objects a result may hold; more are no annotation but a picture."""

VOID = 255
"""The value of a truth's pixels that nobody is asked about."""


def score_unsupervised(
    sequence: str, results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "..."]
) -> list[TrackScores]:
    """J and F of every true object with the result that the best one-to-one assignment gives it.

    Best is the largest mean over frames of (J + F) / 2. All frames count, void pixels do not. Results with fewer
    objects than the truth are filled up with empty ones.

    Raises:
        TypeError: index maps that are not of integers.
        ValueError: different shapes, no frame, no object in the first true frame, or too many objects.
    """
    count, found = _count_objects(sequence, results, truths)
    j, f = _all_pairs(np.where(truths == VOID, 0, results), truths, max(count, found), count)
    rows, columns = linear_sum_assignment((j + f).mean(axis=0), maximize=True)
    # Parity: tracks are listed and numbered by ascending *result* id, not by the truth's. Totals do not depend on it.
    return [
        _track(sequence, number, int(row), int(column), j, f)
        for number, (row, column) in enumerate(zip(rows, columns, strict=True), start=1)
    ]


def score_semi_supervised(
    sequence: str, results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "..."]
) -> list[TrackScores]:
    """J and F of every true object with the result of the same id, without the first and the last frame.

    Ids that the results lack are empty objects. No pixel is void: 255 in the truth is background.

    Raises:
        TypeError: index maps that are not of integers.
        ValueError: different shapes, fewer than 3 frames, no object in the first true frame, or ids beyond the truth's.
    """
    count, found = _count_objects(sequence, results, truths)
    if found > count:
        raise ValueError(
            f"Results of {sequence!r} hold object {found}, but the first true frame only {count}. "
            f"Give results the truth's ids, or use score_unsupervised."
        )
    if len(results) < 3:
        raise ValueError(
            f"{sequence!r} has {len(results)} frames and the first and last do not count. Give at least 3."
        )
    j, f = _all_pairs(results[1:-1], truths[1:-1], count, count)
    return [_track(sequence, row + 1, row, row, j, f) for row in range(count)]


def _count_objects(sequence: str, results: np.ndarray, truths: np.ndarray) -> tuple[int, int]:
    """Objects of the truth, by its first frame, and of the results, by any frame; after a look at both."""
    for name, maps in (("Results", results), ("Truths", truths)):
        if maps.dtype.kind not in "iu":
            raise TypeError(f"{name} of {sequence!r} are {maps.dtype}, not integers. Read the PNGs as index maps.")
    if results.ndim != 3 or results.shape != truths.shape or not results.size:
        raise ValueError(
            f"Results of {sequence!r} have shape {results.shape}, truths {truths.shape}; both are t, h, w, the same "
            f"and not empty. Write results at the original size, one for each annotated frame."
        )
    count = int(truths[0].max(where=truths[0] != VOID, initial=0))
    if not count:
        raise ValueError(f"The first true frame of {sequence!r} holds no object. Check the path of the annotations.")
    found = int(results.max())
    if max(found, count) > MOST_OBJECTS:
        who = "Results" if found > MOST_OBJECTS else "Truths"
        raise ValueError(
            f"{who} of {sequence!r} hold {max(found, count)} objects; at most {MOST_OBJECTS} are scored. "
            f"Pixels are object ids (palette PNG), not grey levels."
        )
    return count, found


def _all_pairs(
    results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "t h w"], result_count: int, truth_count: int
) -> tuple[Float[np.ndarray, "t results truths"], Float[np.ndarray, "t results truths"]]:
    """J and F of every result (ids 1, 2, …) with every truth, frame by frame; each outline is drawn once."""
    j = np.empty((len(results), result_count, truth_count))
    f = np.empty_like(j)
    for frame, (result, truth) in enumerate(zip(results, truths, strict=True)):
        j[frame] = _jaccard_pairs(result, truth, result_count, truth_count)
        drawn = [outline(result == row) for row in range(1, result_count + 1)]
        wanted = [outline(truth == column) for column in range(1, truth_count + 1)]
        f[frame] = [[one.f_measure(other) for other in wanted] for one in drawn]
    return j, f


def _jaccard_pairs(
    result: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"], result_count: int, truth_count: int
) -> Float[np.ndarray, "results truths"]:
    # Void, and objects that enter after the first frame, have ids beyond the truth's count: background to the others.
    known = np.where(truth <= truth_count, truth, 0)
    rows, columns = result_count + 1, truth_count + 1
    pixels = np.bincount((result * np.int64(columns) + known).ravel(), minlength=rows * columns).reshape(rows, columns)
    both = pixels[1:, 1:]
    either = pixels.sum(axis=1)[1:, None] + pixels.sum(axis=0)[1:] - both
    return np.divide(both, either, out=np.ones(both.shape), where=either > 0)


def _track(sequence: str, number: int, row: int, column: int, j: np.ndarray, f: np.ndarray) -> TrackScores:
    return TrackScores(
        name=f"{sequence}_{number}",
        j=frame_statistics(j[:, row, column]),
        f=frame_statistics(f[:, row, column]),
        result_id=row + 1,
        truth_id=column + 1,
    )
