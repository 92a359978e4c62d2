"""Scores one video: the scoring protocol of each dataset, and the rows it gives.

`score_video` makes small rows on any number of workers; `figures` computes J&F, mAP and the others from all of them.
Validation during training and jobs/evaluate.py both use them.
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
from pipelines.sources.names import TOOL_FORMATS

__all__ = [
    "SCORING_PROTOCOLS",
    "Figures",
    "MissingPredictions",
    "PictureRow",
    "Row",
    "ScoringProtocol",
    "TrackRow",
    "figures",
    "metric_name",
    "score_video",
    "scoring_protocol",
    "truth_of",
]


@dataclass(frozen=True, slots=True)
class ScoringProtocol:
    """Rules of how a benchmark scores a video: a function that names missing predictions, and one that makes rows."""

    missing: Callable[[VideoTruth, Sequence[Prediction]], list[str]]
    score: Callable[[VideoTruth, Sequence[Prediction]], Sequence[Row]]


TRACKS = ScoringProtocol(missing_tracks, score_tracks)
WITHOUT_ANY = ScoringProtocol(missing_tracks, partial(score_tracks, zero_without="any frame"))
WITHOUT_FIRST = ScoringProtocol(missing_tracks, partial(score_tracks, zero_without="first frame"))
WITHOUT_ALL = ScoringProtocol(missing_tracks, partial(score_tracks, zero_without="every frame"))
MASKS = ScoringProtocol(missing_pictures, score_pictures)
MASKS_AND_BOXES = ScoringProtocol(missing_pictures, partial(score_pictures, with_boxes=True))

SCORING_PROTOCOLS = {
    "ref-youtube-vos": TRACKS,
    # Their own code gives 0, or stops, where it misses these frames, though an empty mask may be right there.
    "revos": WITHOUT_ANY,
    **dict.fromkeys(("mevis", "mevis-v2", "long-rvos"), WITHOUT_FIRST),
    "ref-sav": WITHOUT_ALL,
    "vots": TRACKS,
    "own": TRACKS,
    **dict.fromkeys(TOOL_FORMATS, TRACKS),
    "ref-davis17": ScoringProtocol(missing_maps, score_davis),
    "a2d-sentences": MASKS,
    "jhmdb-sentences": MASKS,
    "refcoco": MASKS_AND_BOXES,
    "refcoco+": MASKS_AND_BOXES,
    "refcocog": MASKS_AND_BOXES,
}
"""Dataset → protocol."""


class MissingPredictions(ValueError):
    """Predictions that the truth requires are missing. `missing` lists all, the message the first ten."""

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


def scoring_protocol(dataset: str) -> ScoringProtocol:
    """Returns the scoring protocol of a dataset.

    Raises:
        ValueError: there is none.
    """
    if dataset not in SCORING_PROTOCOLS:
        raise ValueError(f"There are no scores for dataset {dataset!r}. There are for {', '.join(SCORING_PROTOCOLS)}.")
    return SCORING_PROTOCOLS[dataset]


def score_video(
    truth: VideoTruth,
    predictions: Sequence[Prediction],
    protocol: ScoringProtocol | None = None,
    *,
    missing_as_empty: bool = False,
) -> list[Row]:
    """Scores one video; expressions with withheld truth have no rows.

    Args:
        truth: `truth_of` a record.
        predictions: all predictions of the video.
        protocol: the dataset's own where none is given. Validation scores Ref-DAVIS17 by `TRACKS` where no maps were
            merged.
        missing_as_empty: count missing predictions as empty masks.

    Raises:
        MissingPredictions: a prediction is missing.
        ValueError: a dataset without protocol, or a prediction that is given twice, damaged or at another size.
    """
    protocol = protocol or scoring_protocol(truth.dataset)
    if not missing_as_empty and (missing := protocol.missing(truth, predictions)):
        raise MissingPredictions(missing)
    return list(protocol.score(truth, predictions))
