"""Rows that figures are computed from: one per track or picture, small enough to gather from all workers."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.files import Folder
from pipelines.scoring.attributes import Attributes
from sgmg.metrics import FrameStatistics, TrackScores

TrackProtocol = Literal["expression", "unsupervised", "strict-id"]


@dataclass(frozen=True, slots=True)
class TrackRow:
    """J and F of one expression along its video, or of one DAVIS object under one protocol.

    `t_iou` is the share of the frames with a pixel in truth or result that have one in both; `v_iou` the sum of J over
    the latter, divided by the number of the former; both are 1 if no frame has a pixel (Long-RVOS). `robustness` is
    that of ReVOS: 1 - false pixels / pixels of the video's objects, at least 0, on average over frames.
    """

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    protocol: TrackProtocol
    frames: int
    j: float
    j_recall: float
    j_decay: float
    f: float
    f_recall: float
    f_decay: float
    annotator: int | None = None
    truth_id: int = 1
    result_id: int = 1
    kind: str = ""  # of the expression
    length: int = 0  # frames of the video
    found: bool = True  # whether the result has a pixel in any scored frame
    t_iou: float | None = None
    v_iou: float | None = None
    robustness: float | None = None
    attributes: Attributes | None = None

    @property
    def figure(self) -> float:
        """Figure by which rows are ranked: J&F."""
        return (self.j + self.f) / 2

    @property
    def scores(self) -> TrackScores:
        """Input of `sgmg.metrics.total_scores`."""
        j = FrameStatistics(self.j, self.j_recall, self.j_decay)
        f = FrameStatistics(self.f, self.f_recall, self.f_decay)
        return TrackScores(f"{self.video}_{self.expression}", j, f, self.result_id, self.truth_id)


@dataclass(frozen=True, slots=True)
class Match:
    """Agreement of a picture's q candidates, masks or boxes, with the truth: the input of COCO's scores.

    `intersection`, `union` and `iou` are of the candidate with the highest score. `overlaps` are COCO's own IoUs, of
    all; areas decide which objects are small, medium or large.
    """

    intersection: float
    union: float
    iou: float
    overlaps: tuple[float, ...]
    scores: tuple[float, ...]
    areas: tuple[float, ...]
    truth_area: float
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class PictureRow:
    """Scores of one expression at one frame. `result` is its image id in COCO results."""

    dataset: str
    split: str
    video: str
    expression: str
    text: str
    frame: str
    result: str
    masks: Match
    boxes: Match | None = None
    hits: tuple[bool, ...] | None = None  # whether one of the 1, 5, 10 highest-scored boxes has gIoU >= .5
    attributes: Attributes | None = None

    @property
    def figure(self) -> float:
        """Figure by which rows are ranked: IoU."""
        return self.masks.iou

    @property
    def order(self) -> tuple[int, str]:
        """Sort key of COCO's tools: numbers by value, names alphabetically."""
        return (int(self.result), "") if self.result.isdecimal() else (0, self.result)


Row = TrackRow | PictureRow


def track_row(
    scores: TrackScores,
    frames: int,
    protocol: TrackProtocol,
    *,
    dataset: str,
    split: str,
    video: str,
    expression: str,
    text: str,
    annotator: int | None = None,
    attributes: Attributes | None = None,
) -> TrackRow:
    """Makes the row of a scored track."""
    j, f = scores.j, scores.f
    return TrackRow(
        dataset=dataset,
        split=split,
        video=video,
        expression=expression,
        text=text,
        protocol=protocol,
        frames=frames,
        j=j.mean,
        j_recall=j.recall,
        j_decay=j.decay,
        f=f.mean,
        f_recall=f.recall,
        f_decay=f.decay,
        annotator=annotator,
        truth_id=scores.truth_id,
        result_id=scores.result_id,
        attributes=attributes,
    )


def rows_table(rows: Sequence[Row]) -> pa.Table:
    """Makes a table of all rows, one column per field; those of `Match` become masks_iou, boxes_iou and so on.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("There are no scores to make a table of. Check that results and truth name the same videos.")
    return pa.Table.from_pylist([_flat(asdict(row)) for row in rows])


def csv_bytes(table: pa.Table) -> bytes:
    """Writes the scalar columns of a table as CSV, for spreadsheets."""
    plain = [field.name for field in table.schema if not pa.types.is_list(field.type)]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table.select(plain), buffer)
    return buffer.getvalue()


def write_parquet(folder: Folder, name: str, table: pa.Table) -> None:
    """Writes the whole table, with its list columns, as one Parquet file."""
    with folder.output(name) as stream:
        pq.write_table(table, stream)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name == "attributes":
            flat |= value or {}
        elif isinstance(value, dict):
            flat.update({f"{name}_{inner}": one for inner, one in value.items()})
        elif value is not None or name not in ("boxes", "hits"):
            flat[name] = value
    return flat
