"""The unsupervised and semi-supervised scores of DAVIS 2017 on index maps, per sequence (spec data 5, Ref-DAVIS).

An index map holds the object id of each pixel, 0 for background; in the ground truth, 255 is void.
`sgmg.metrics.total_scores` averages the tracks of all sequences; the paper reports the mean J&F of four annotators.
"""

import numpy as np
from jaxtyping import Float, Integer

from sgmg.metrics import TrackScores, frame_statistics, outline

MOST_OBJECTS = 20
"""Maximum number of objects in a map; more mean that a picture was read, not an annotation."""

VOID = 255
"""Value of ground truth pixels that are not scored."""


def score_unsupervised(
    sequence: str, results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "..."]
) -> list[TrackScores]:
    """Scores every true object against the result assigned to it by the best one-to-one assignment.

    The best assignment has the largest mean over frames of (J + F) / 2. All frames count; void pixels do not. Missing
    result objects count as empty.

    Raises:
        TypeError: an index map is not of integers.
        ValueError: shapes differ, there is no frame, the first true frame has no object, or there are over 20.
    """
    from scipy.optimize import linear_sum_assignment  # for half a second, which other protocols need not wait

    truth_count, result_count = _count_objects(sequence, results, truths)
    j, f = _all_pairs(np.where(truths == VOID, 0, results), truths, max(truth_count, result_count), truth_count)
    rows, columns = linear_sum_assignment((j + f).mean(axis=0), maximize=True)
    # Parity: tracks are listed and numbered by ascending *result* id, not by the truth's. Totals do not depend on it.
    return [
        _track(sequence, number, int(row), int(column), j, f)
        for number, (row, column) in enumerate(zip(rows, columns, strict=True), start=1)
    ]


def score_semi_supervised(
    sequence: str, results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "..."]
) -> list[TrackScores]:
    """Scores every true object against the result of the same id, without the first and the last frame.

    Missing result objects count as empty. No pixel is void: 255 in the ground truth is background.

    Raises:
        TypeError: an index map is not of integers.
        ValueError: shapes differ, there are fewer than 3 frames, the first true frame has no object, or a result has an
            id that the ground truth lacks.
    """
    truth_count, result_count = _count_objects(sequence, results, truths)
    if result_count > truth_count:
        raise ValueError(
            f"Results of {sequence!r} hold object {result_count}, but the first true frame only {truth_count}. "
            f"Give results the truth's ids, or use score_unsupervised."
        )
    if len(results) < 3:
        raise ValueError(
            f"{sequence!r} has {len(results)} frames and the first and last do not count. Give at least 3."
        )
    j, f = _all_pairs(results[1:-1], truths[1:-1], truth_count, truth_count)
    return [_track(sequence, row + 1, row, row, j, f) for row in range(truth_count)]


def _count_objects(sequence: str, results: np.ndarray, truths: np.ndarray) -> tuple[int, int]:
    """Checks both maps and counts the objects: of the ground truth in its first frame, of the results in all frames."""
    for name, maps in (("Results", results), ("Truths", truths)):
        if maps.dtype.kind not in "iu":
            raise TypeError(f"{name} of {sequence!r} are {maps.dtype}, not integers. Read the PNGs as index maps.")
    if results.ndim != 3 or results.shape != truths.shape or not results.size:
        raise ValueError(
            f"Results of {sequence!r} have shape {results.shape}, truths {truths.shape}; both are t, h, w, the same "
            f"and not empty. Write results at the original size, one for each annotated frame."
        )
    truth_count = int(truths[0].max(where=truths[0] != VOID, initial=0))
    if not truth_count:
        raise ValueError(f"The first true frame of {sequence!r} holds no object. Check the path of the annotations.")
    result_count = int(results.max())
    if max(result_count, truth_count) > MOST_OBJECTS:
        who = "Results" if result_count > MOST_OBJECTS else "Truths"
        raise ValueError(
            f"{who} of {sequence!r} hold {max(result_count, truth_count)} objects; at most {MOST_OBJECTS} are scored. "
            f"Pixels are object ids (palette PNG), not grey levels."
        )
    return truth_count, result_count


def _all_pairs(
    results: Integer[np.ndarray, "t h w"], truths: Integer[np.ndarray, "t h w"], result_count: int, truth_count: int
) -> tuple[Float[np.ndarray, "t results truths"], Float[np.ndarray, "t results truths"]]:
    """Computes J and F of every result (ids 1, 2, …) with every true object, frame by frame."""
    j = np.empty((len(results), result_count, truth_count))
    f = np.empty_like(j)
    for frame, (result, truth) in enumerate(zip(results, truths, strict=True)):
        j[frame] = _jaccard_pairs(result, truth, result_count, truth_count)
        result_outlines = [outline(result == row) for row in range(1, result_count + 1)]
        truth_outlines = [outline(truth == column) for column in range(1, truth_count + 1)]
        f[frame] = [[one.f_measure(other) for other in truth_outlines] for one in result_outlines]
    return j, f


def _jaccard_pairs(
    result: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"], result_count: int, truth_count: int
) -> Float[np.ndarray, "results truths"]:
    # Void, and objects that enter after the first frame, have ids above the count: background for the other objects.
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
