"""Scores a whole run: one Ray task per part of the truth, a few at a time; rows in the order of the truth."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from pipelines.predictions import Prediction
from pipelines.scoring.prediction_source import ParquetPredictions, PredictionSource
from pipelines.scoring.score import MissingPredictions, Row, score_video, scoring_protocol
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import DavisPart, PreparedPart, TruthPart

_log = logging.getLogger(__name__)

TASKS_PER_CORE = 2
"""Pieces that are asked for at once: enough that no core waits, few enough that little waits in memory."""


@dataclass(frozen=True, slots=True)
class PartScores:
    """The rows of one part of the truth. `problem` says why there are none."""

    rows: tuple[Row, ...] = ()
    withheld: int = 0  # expressions without truth
    missing: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RunScores:
    """Rows of all expressions of a run, and the videos that were not scored."""

    rows: tuple[Row, ...]
    withheld: int
    missing: tuple[str, ...]  # scored as empty
    extra_videos: tuple[str, ...] = field(default=())  # predicted videos that the truth does not know
    synthetic: bool = False  # whether the data were drawn


def score_run(parts: Sequence[TruthPart], source: PredictionSource, *, missing_as_empty: bool = False) -> RunScores:
    """Scores every video of the truth. Ray must be running; each worker holds one part of the truth at a time.

    Raises:
        MissingPredictions: predictions are missing, and `missing_as_empty` is false.
        ValueError: another dataset or split, withheld truth, or damaged files; the message lists the first ten.
    """
    check_same_data(parts, source)
    parts = _with_annotators(parts, source)
    scored = _score_all(parts, source, missing_as_empty)
    missing = [what for one in scored for what in one.missing]
    if problems := [one.problem for one in scored if one.problem]:
        more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError("\n".join(problems[:10]) + more)
    if missing and not missing_as_empty:
        raise MissingPredictions(missing)
    rows = tuple(row for one in scored for row in one.rows)
    withheld = sum(one.withheld for one in scored)
    if not rows:
        raise ValueError(
            f"None of {withheld} expressions has a truth: the data are published without. Give --truth a folder that "
            f"holds the masks, or send the results to the benchmark's server."
        )
    known = {video for part in parts for video in part.videos}
    synthetic = any(part.synthetic for part in parts)
    return RunScores(rows, withheld, tuple(missing), tuple(sorted(source.videos - known)), synthetic)


def check_same_data(parts: Sequence[TruthPart], source: PredictionSource) -> None:
    """Checks that truth and predictions are of one dataset and the same splits.

    Raises:
        ValueError: they differ, have no video in common, or the truth is withheld.
    """
    datasets, splits = {part.dataset for part in parts}, {part.split for part in parts}
    if len(datasets) != 1:
        raise ValueError(f"The truth is of {', '.join(sorted(datasets)) or 'no dataset'}. Score one dataset at a time.")
    scoring_protocol(*datasets)
    if not any(part.labelled for part in parts):
        raise ValueError(
            f"The truth of {', '.join(datasets)} {', '.join(sorted(splits))} is not in these data: it is published "
            f"without. Give --truth a folder that holds the masks, or send the results to the benchmark's server."
        )
    if isinstance(source, ParquetPredictions):
        predicted = source.predictions
        if {predicted.dataset} != datasets:
            raise ValueError(
                f"The predictions are of {predicted.dataset}, the truth is of {', '.join(datasets)}. Give the truth of "
                f"the data that were predicted."
            )
        if predicted.split not in splits:
            raise ValueError(
                f"The predictions are of split {predicted.split}, the truth is of {', '.join(sorted(splits))}. Give "
                f"the truth of the split that was predicted."
            )
    videos = {video for part in parts for video in part.videos}
    if not videos & source.videos:
        raise ValueError(
            f"None of the {len(videos)} videos of the truth is predicted (the first is {min(videos, default='none')}, "
            f"that of the predictions {min(source.videos, default='none')}). Give predictions and truth of one and the "
            f"same data."
        )


def _with_annotators(parts: Sequence[TruthPart], source: PredictionSource) -> list[TruthPart]:
    """Fills in the annotators of DAVIS parts from the predictions, as DAVIS folders do not name them."""
    if not any(isinstance(part, DavisPart) for part in parts):
        return list(parts)
    annotators = source.annotators or frozenset(range(4))
    return [
        replace(part, annotators=tuple(sorted(annotators))) if isinstance(part, DavisPart) else part for part in parts
    ]


def _score_all(parts: Sequence[TruthPart], source: PredictionSource, missing_as_empty: bool) -> list[PartScores]:
    """Scores all parts, in order. After the first missing prediction the rest is only checked for more."""
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    # The list of a zip is read anew by every task: few tasks then, each with several pieces.
    several = 1 if isinstance(source, ParquetPredictions) else math.ceil(len(parts) / (4 * cores))
    batches = [parts[start : start + several] for start in range(0, len(parts), several)]
    results: dict[int, PartScores] = {}
    running: dict[ray.ObjectRef[Any], int] = {}
    ahead = iter(enumerate(batches))
    failed = False
    last_logged = time.monotonic()
    while len(results) < len(batches):
        while len(running) < TASKS_PER_CORE * cores and (following := next(ahead, None)) is not None:
            number, batch = following
            own = source.only([video for part in batch for video in part.videos])
            running[_score_parts.remote(batch, own, missing_as_empty, failed)] = number
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        result = ray.get(done)
        results[running.pop(done)] = result
        failed |= bool(result.problem or (result.missing and not missing_as_empty))
        if time.monotonic() - last_logged > 10:
            last_logged = time.monotonic()
            _log.info("scored %d of %d pieces", len(results), len(batches))
    return [results[number] for number in range(len(batches))]


@ray.remote(num_cpus=1, max_retries=3)
def _score_parts(
    parts: Sequence[TruthPart], source: PredictionSource, missing_as_empty: bool, only_look: bool
) -> PartScores:
    return score_parts(parts, source, missing_as_empty=missing_as_empty, only_look=only_look)


def score_parts(
    parts: Sequence[TruthPart], source: PredictionSource, *, missing_as_empty: bool = False, only_look: bool = False
) -> PartScores:
    """Scores parts of the truth. Problems are returned as values, so that one message can list them all."""
    rows: list[Row] = []
    missing: list[str] = []
    try:
        truths = [truth for part in parts for truth in _read(part)]
        predictions: dict[str, list[Prediction]] = {}
        for one in source.read(truths):
            predictions.setdefault(one.video, []).append(one)
        for truth in truths:
            own, protocol = predictions.get(truth.video, []), scoring_protocol(truth.dataset)
            absent = protocol.missing(truth, own)
            missing += absent if own or not absent else [f"video {truth.video}"]
            if not only_look and (missing_as_empty or not missing):
                rows += score_video(truth, own, protocol, missing_as_empty=True)
    except (ValueError, FileNotFoundError) as error:
        return PartScores(problem=str(error))
    withheld = sum(len(truth.expressions) - len(truth.labelled_expressions) for truth in truths)
    return PartScores(tuple(rows), withheld, tuple(missing))


def _read(part: TruthPart) -> list[VideoTruth]:
    """Reads the truths of a part.

    Raises:
        ValueError: a file is damaged or missing; the message names it.
    """
    try:
        return part.read()
    except OSError as error:
        where = part.folder.path(part.file) if isinstance(part, PreparedPart) else f"The truth of {part.videos[0]}"
        raise ValueError(f"{where} cannot be read ({error}). Prepare the data, or unpack the truth, again.") from error
