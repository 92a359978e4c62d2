"""One set of validation data: its videos are predicted and scored, and its worst and best cases drawn."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.errors import BadItem
from pipelines.inference.predictor import Predictor
from pipelines.scoring.cases import Case, draw_case, worst_and_best
from pipelines.scoring.score import Row, figures, metric_name, score_video, truth_of
from pipelines.training.validation_rows import Lost, RowRef, decoded_ahead, read_records

log = logging.getLogger(__name__)

PICTURES = 2
"""Number of worst, and of best, cases that are drawn of each set at each validation."""
_MAIN: dict[str, str] = dict.fromkeys(("refcoco", "refcoco+", "refcocog"), "overall_iou")
"""Figure that the best checkpoint is chosen by, for datasets where it is not the first."""
_REASONS = 3
"""Most reasons that are listed of why a set has no score."""


@dataclass(frozen=True, slots=True)
class ValidSet:
    """Rows that are scored together: of one dataset and split, and with truth. `name` is used in MLflow."""

    name: str
    dataset: str
    rows: tuple[RowRef, ...]


@dataclass(frozen=True, slots=True)
class SetResult:
    """Figures of a set, and PNGs by name. `main` names the figure that checkpoints are compared by.

    A set without a score has neither, and `no_score` says why. Figures of fewer videos than at other steps could not be
    compared.
    """

    name: str
    videos_lost: int
    main: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    no_score: str = ""


@dataclass(frozen=True, slots=True)
class SetPart:
    """Findings of one rank in a set: rows with the references of their videos, and the videos that it lost."""

    rows: tuple[tuple[RowRef, Row], ...]
    lost: tuple[Lost, ...]


def score_rows(rows: Sequence[RowRef], predictor: Predictor) -> SetPart:
    """Predicts and scores the videos of one rank. Those that are lost are returned, as other ranks wait for the result.

    A video whose frames cannot be decoded or that the model gives no numbers for is left out, as at every step.
    """
    scored: list[tuple[RowRef, Row]] = []
    lost: list[Lost] = []
    for video in decoded_ahead(rows, predictor.protocol):
        if isinstance(video, Lost):
            lost.append(video)
            continue
        try:
            predictions = predictor.predict_decoded(video.frames)
            scored += [(video.ref, row) for row in score_video(video.truth, predictions)]
        except BadItem as error:
            lost.append(Lost(video.ref.video, error.reason, truth=False))
        except ValueError as error:  # the truth is damaged, or of another size than the video
            lost.append(Lost(video.ref.video, str(error), truth=True))
    for one in lost:
        if not one.truth:  # the others are counted by `result_of`, for all ranks
            log.warning("not scored: %s: %s", one.video, one.reason)
    return SetPart(tuple(scored), tuple(lost))


def result_of(one: ValidSet, parts: Sequence[SetPart], predictor: Predictor) -> SetResult:
    """Returns the result of a set from what all ranks found; predicts the worst and the best cases again, to draw."""
    rows = [row for part in parts for row in part.rows]
    lost = [video for part in parts for video in part.lost]
    if no_score := _no_score(one, bool(rows), lost):
        return SetResult(one.name, len(lost), no_score=no_score)
    overall = figures([row for _, row in rows])
    main = _MAIN.get(one.dataset, next(iter(overall)))
    named = {metric_name(name): value for name, value in overall.items()}
    return SetResult(one.name, len(lost), metric_name(main), named, _pictures(rows, predictor))


def _no_score(one: ValidSet, scored: bool, lost: Sequence[Lost]) -> str:
    """Returns why a set has no score, with counts: truth is lost, or no video is scored. Empty if it has one."""
    truth = [video for video in lost if video.truth]
    if scored and not truth:
        return ""
    reasons = Counter(video.reason for video in truth or lost).most_common()
    listed = [f"{count} x {reason}" for reason, count in reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        listed.append(f"and {len(reasons) - _REASONS} other reasons")
    videos = len(one.rows)
    what = f"the truth of {len(truth)} of {videos} videos is lost" if truth else f"none of {videos} videos is scored"
    return f"{what} ({'; '.join(listed) or 'no frame has a truth'})"


def _pictures(rows: Sequence[tuple[RowRef, Row]], predictor: Predictor) -> dict[str, bytes]:
    """Draws the worst and the best expressions; predicts them again, as predictions are not kept."""
    ref_of = {row: ref for ref, row in rows}
    cases: defaultdict[RowRef, list[Case]] = defaultdict(list)
    for case in worst_and_best(list(ref_of), PICTURES):
        cases[ref_of[case.row]].append(case)
    drawn: dict[str, bytes] = {}
    for ref, record in read_records(list(cases)):
        try:
            if isinstance(record, Lost):
                raise ValueError(record.reason)
            predictions, truth = predictor.predict(record), truth_of(record)
            frames = dict(zip(record.frame_names, record.frames, strict=True))
            for case in cases[ref]:
                drawn[case.name.removesuffix(".png")] = draw_case(case.row, truth, predictions, frames)
        except (OSError, ValueError) as error:
            log.warning("no picture of %s: %s", ref.video, error)
    return drawn
