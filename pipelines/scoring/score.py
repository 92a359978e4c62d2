"""Predictions of a video against its truth: which protocol a dataset is scored by, and what it gives.

`score_video` makes small rows that any number of workers may count and send; `figures` makes J&F, mAP and the rest of
all of them. Training validation and jobs/evaluate.py do the same with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.predictions import Prediction
from pipelines.scoring.davis import missing_maps, score_davis
from pipelines.scoring.figures import Figures, figures, metric_name
from pipelines.scoring.pictures import missing_pictures, score_pictures
from pipelines.scoring.rows import PictureRow, Row, TrackRow
from pipelines.scoring.tracks import missing_tracks, score_tracks
from pipelines.scoring.truth import VideoTruth, truth_of

__all__ = [
    "PROTOCOLS",
    "Figures",
    "MissingPredictions",
    "PictureRow",
    "Protocol",
    "Row",
    "TrackRow",
    "figures",
    "metric_name",
    "score_video",
    "scoring_protocol",
    "truth_of",
]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a benchmark scores a video: what should be there and is not (in words), and the rows of what is."""

    missing: Callable[[VideoTruth, Sequence[Prediction]], list[str]]
    score: Callable[[VideoTruth, Sequence[Prediction]], Sequence[Row]]


TRACKS = Protocol(missing_tracks, score_tracks)
MASKS = Protocol(missing_pictures, score_pictures)
MASKS_AND_BOXES = Protocol(missing_pictures, partial(score_pictures, with_boxes=True))

PROTOCOLS = {
    "ref-youtube-vos": TRACKS,
    "mevis": TRACKS,
    "own": TRACKS,
    "ref-davis17": Protocol(missing_maps, score_davis),
    "a2d-sentences": MASKS,
    "jhmdb-sentences": MASKS,
    "refcoco": MASKS_AND_BOXES,
    "refcoco+": MASKS_AND_BOXES,
    "refcocog": MASKS_AND_BOXES,
}
"""Dataset → protocol."""


class MissingPredictions(ValueError):
    """Something the truth asks for is not predicted. `missing` lists all of it, the message the first ten."""

    def __init__(self, missing: Sequence[str]) -> None:
        more = f"; and {len(missing) - 10} more" if len(missing) > 10 else ""
        things = (
            "1 thing that the truth asks for is"
            if len(missing) == 1
            else (f"{len(missing)} things that the truth asks for are")
        )
        super().__init__(
            f"{things} not predicted: {'; '.join(missing[:10])}{more}. Run jobs/predict.py again: it makes what is "
            f"missing, and its quarantine.jsonl tells what could not be read; or score it as empty masks "
            f"(--missing-as-empty)."
        )
        self.missing = tuple(missing)

    def __reduce__(self) -> tuple[type["MissingPredictions"], tuple[tuple[str, ...]]]:
        return MissingPredictions, (self.missing,)


def scoring_protocol(dataset: str) -> Protocol:
    """The protocol of a dataset.

    Raises:
        ValueError: there is none.
    """
    if dataset not in PROTOCOLS:
        raise ValueError(f"There are no scores for dataset {dataset!r}. There are for {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[dataset]


def score_video(
    truth: VideoTruth,
    predictions: Sequence[Prediction],
    protocol: Protocol | None = None,
    *,
    missing_as_empty: bool = False,
) -> list[Row]:
    """The rows of one video; expressions whose truth is withheld have none.

    Args:
        truth: `truth_of` a record.
        predictions: all of that video.
        protocol: the dataset's own where none is given. Validation scores Ref-DAVIS17 by `TRACKS` where no maps were
            merged.
        missing_as_empty: whether what is not predicted counts as empty masks.

    Raises:
        MissingPredictions: something is not predicted.
        ValueError: a dataset without protocol, something is predicted twice or at another size, or it is damaged.
    """
    protocol = protocol or scoring_protocol(truth.dataset)
    if not missing_as_empty and (missing := protocol.missing(truth, predictions)):
        raise MissingPredictions(missing)
    return list(protocol.score(truth, predictions))
