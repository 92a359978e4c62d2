"""The row of predictions: the masks of one expression in one video. All formats and scores are made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import pyarrow as pa

from pipelines.safety.limits import check_pixels

PREDICTION_VERSION = 1
"""Schema version, written into every row; readers refuse other versions."""

Status = Literal["ok", "absent", "partial"]
"""Status of a prediction. `absent`: all masks of the chosen query are empty. `partial`: part of the video could not be
read, see the note."""


Box = tuple[float, float, float, float]
"""xyxy in pixels of the original."""


@dataclass(frozen=True, slots=True)
class QueryTrack:
    """Masks, boxes and scores of one query in each of the row's frames, in pixels of the original size."""

    rle: tuple[str, ...]  # COCO compressed, at height x width
    boxes: tuple[Box, ...]
    scores: tuple[float, ...]  # 0 … 1

    def __post_init__(self) -> None:
        if not len(self.rle) == len(self.boxes) == len(self.scores):
            raise ValueError(
                f"{len(self.rle)} masks, {len(self.boxes)} boxes, {len(self.scores)} scores: give one a frame."
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of one expression in one video, or in one segment of at most 1 000 frames (spec data.md §4).

    `frame_names` are those of the predicted frames: all of a video, the annotated ones of A2D and JHMDB (whose
    `external_id` is a template, see `sources.frame_ids`). `queries` are the kept ones: only the chosen one by
    default; A2D and JHMDB keep all in query order, RefCOCO all by falling score. `merged` holds, for
    Ref-DAVIS17 and in the row of an annotator's first object only, a PNG of object ids (from 1) a frame.

    `fps` of annotated videos is the mean rate of the frames that were chosen of the whole video (`mean_rate`), the same
    in all its rows; None where nothing tells when its frames were taken (times are made up then), or one was chosen. In
    predictions of prepared data it is the rate of the prepared video, if that is known.
    """

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    width: int  # of the original
    height: int
    frame_names: tuple[str, ...]
    queries: tuple[QueryTrack, ...]
    score: float  # of the chosen query, averaged over the frames
    fingerprint: str  # of checkpoint and settings
    source: str
    source_fingerprint: str
    external_id: str | None = None
    annotator: int | None = None
    status: Status = "ok"
    note: str = ""
    segment: int = 0
    start_frame: int = 0
    fps: float | None = None
    timestamps: tuple[float, ...] | None = None  # seconds
    merged: tuple[bytes, ...] | None = None
    schema_version: int = PREDICTION_VERSION

    def __post_init__(self) -> None:
        """Checks the invariants that readers rely on.

        Raises:
            ValueError: an impossible size, no query, lists of different length, or an unknown status.
        """
        check_pixels(self.height, self.width)
        t = len(self.frame_names)
        if not t or not self.queries or any(len(query.rle) != t for query in self.queries):
            found = [len(query.rle) for query in self.queries]
            raise ValueError(f"{self.video}, {self.expression}: {t} frames, queries of {found}. Give one mask a frame.")
        if self.merged is not None and len(self.merged) != t:
            raise ValueError(f"{self.video}, {self.expression}: {len(self.merged)} merged maps for {t} frames.")
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r} is none of {', '.join(get_args(Status))}.")

    def to_row(self) -> dict[str, Any]:
        """Converts to plain values in the order of `PREDICTION_SCHEMA`."""
        return asdict(self)


def mean_rate(times: Sequence[float] | np.ndarray) -> float | None:
    """Returns the mean number of frames per second of frames shown at these times (seconds, ascending).

    >>> mean_rate([0.0, 0.5, 2.0]), mean_rate([3.0])
    (1.0, None)
    """
    length = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return (len(times) - 1) / length if length > 0 else None


QUERY = pa.struct(
    [
        ("rle", pa.list_(pa.string())),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("scores", pa.list_(pa.float32())),
    ]
)
"""Type of a `QueryTrack` in Parquet."""
PREDICTION_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("video", pa.string()),
        ("expression", pa.string()),
        ("text", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frame_names", pa.list_(pa.string())),
        ("queries", pa.list_(QUERY)),
        ("score", pa.float32()),
        ("fingerprint", pa.string()),
        ("source", pa.string()),
        ("source_fingerprint", pa.string()),
        ("external_id", pa.string()),
        ("annotator", pa.int32()),
        ("status", pa.string()),
        ("note", pa.string()),
        ("segment", pa.int32()),
        ("start_frame", pa.int32()),
        ("fps", pa.float64()),
        ("timestamps", pa.list_(pa.float64())),
        ("merged", pa.list_(pa.large_binary())),
        ("schema_version", pa.int32()),
    ]
)
"""Schema of the Parquet files: the fields of `Prediction`, in order."""

assert PREDICTION_SCHEMA.names == [field.name for field in fields(Prediction)]


def predictions_table(predictions: list[Prediction]) -> pa.Table:
    """Converts predictions to an Arrow table."""
    return pa.Table.from_pylist([one.to_row() for one in predictions], schema=PREDICTION_SCHEMA)


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """Makes a prediction of a row from `to_row` or Parquet.

    Raises:
        ValueError: the row has another schema version.
        msgspec.ValidationError: a value is of another type, or an invariant of `Prediction` does not hold.
    """
    if row["schema_version"] != PREDICTION_VERSION:
        raise ValueError(
            f"{row['video']} has prediction version {row['schema_version']}, this code reads {PREDICTION_VERSION}. "
            f"Predict again."
        )
    return msgspec.convert(row, Prediction)
