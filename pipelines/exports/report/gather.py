"""Summaries of videos and expressions for the report, read from the predictions one row group at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from pipelines.files import Folder, number_order, safe_name, without_options
from pipelines.ledger import PREDICTIONS
from pipelines.prediction_reader import Counting, row_groups_of
from pipelines.predictions import PREDICTION_VERSION, Status
from sgmg.masks import Size, mask_to_rle

COLUMNS = 80
"""Maximum number of points of a curve over time."""

_BINS = 64  # maximum number of bins kept per row
_UNTIMED_FPS = 24.0
_READ = ["video", "expression", "text", "width", "height", "frame_names", "queries", "score", "source", "status"]
_READ += ["note", "start_frame", "fps", "timestamps", "schema_version"]


class Best(NamedTuple):
    """Frame with the highest score of an expression, its time in seconds, and the mask in it."""

    score: float
    frame: str
    time: float
    rle: str


@dataclass(frozen=True, slots=True)
class ExpressionSummary:
    """Facts that the report shows of one expression of one video."""

    expression: str
    text: str
    status: Status
    note: str
    score: float  # mean over the frames
    peak: float
    visible: float  # share of the frames that have a mask
    scores: tuple[int, ...]  # per cent, over time
    masked: str  # a character per score: 1 if there is a mask, else 0
    best: Best | None


@dataclass(frozen=True, slots=True)
class VideoSummary:
    """Facts that the report shows of one video."""

    video: str
    source: str
    size: Size
    frames: int
    seconds: float
    fps: float | None
    first_frame: str  # its name
    first_time: float  # seconds
    expressions: tuple[ExpressionSummary, ...]

    @property
    def name(self) -> str:
        """The last part of the path, shown to users."""
        return PurePosixPath(without_options(self.source)).name or self.video


def gather(out: Folder, files: Mapping[str, Counting] | None = None) -> tuple[VideoSummary, ...]:
    """Reads the summary of every video of a folder of predictions, sorted by name; empty without predictions.

    Args:
        out: folder of the run.
        files: which row groups of which files, all those of some videos; None takes all.

    Raises:
        ValueError: a file is damaged or of another version; the message names it.
    """
    inner = out.folder(PREDICTIONS)
    videos: dict[str, _Video] = {}
    for file, counting in (row_groups_of(out) if files is None else files).items():
        for row in _rows(inner, file, counting):
            videos.setdefault(row["video"], _Video()).add(row)
    return by_name(video.summary(name) for name, video in videos.items())


def by_name(videos: Iterable[VideoSummary]) -> tuple[VideoSummary, ...]:
    """Returns videos in the order of the report."""
    return tuple(sorted(videos, key=lambda one: (one.name.casefold(), one.source, one.video)))


def _rows(folder: Folder, file: str, counting: Counting) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file, with `scores` and `masks` of the best query as arrays and the rest as plain values."""
    with folder.parquet(file) as parquet:
        if missing := sorted({*_READ} - set(parquet.schema_arrow.names)):
            raise ValueError(f"{folder.path(file)} has no column {', '.join(missing)}: these are no predictions.")
        for group in range(parquet.num_row_groups) if counting is None else sorted(counting):
            without = () if counting is None else counting[group]
            table = parquet.read_row_group(group, columns=_READ, use_threads=False)
            for index in range(table.num_rows):
                if table["expression"][index].as_py() in without:
                    continue
                row = {name: table[name][index].as_py() for name in _READ if name not in ("queries", "frame_names")}
                if row["schema_version"] != PREDICTION_VERSION:
                    raise ValueError(
                        f"{folder.path(file)} has prediction version {row['schema_version']}, this code reads "
                        f"{PREDICTION_VERSION}. Predict again."
                    )
                safe_name(row["video"])
                queries = cast(pa.StructArray, table["queries"][index].values)
                row["scores"] = queries.field("scores")[0].values.to_numpy().astype(np.float64)
                row["masks"] = queries.field("rle")[0].values
                row["frame_names"] = table["frame_names"][index].values
                yield row


@dataclass(slots=True)
class _Expression:
    text: str = ""
    statuses: set[Status] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    frames: int = 0
    score: float = 0.0  # summed
    masked: int = 0
    peak: float = 0.0
    best: Best | None = None
    bins: list[Float[np.ndarray, "4 bins"]] = field(default_factory=list)  # time, frames, scores, masks


@dataclass(slots=True)
class _Video:
    """Summary of a video under construction; its rows are added in any order."""

    expressions: dict[str, _Expression] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    first_frame: str = ""
    start: float = float("inf")
    end: float = float("-inf")

    def add(self, row: dict[str, Any]) -> None:
        scores: Float[np.ndarray, " t"] = row["scores"]
        size = (row["height"], row["width"])
        empty = mask_to_rle(np.zeros(size, np.bool_)) if size != self.row.get("size") else self.row["empty"]
        masked = row["masks"].to_numpy(zero_copy_only=False) != empty
        self.row = {name: row[name] for name in ("source", "fps")} | {"size": size, "empty": empty}
        times = _times(row)
        gap = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (row["fps"] or _UNTIMED_FPS)
        if times[0] < self.start:
            self.first_frame = row["frame_names"][0].as_py()
        self.start, self.end = min(self.start, times[0]), max(self.end, times[-1] + gap)
        one = self.expressions.setdefault(row["expression"], _Expression())
        one.text = row["text"]
        one.statuses.add(row["status"])
        one.notes |= dict.fromkeys(filter(None, [row["note"]]))
        one.frames += len(scores)
        one.score += row["score"] * len(scores)
        one.masked += int(masked.sum())
        one.peak = max(one.peak, float(scores.max()))
        one.bins.append(_binned(times, scores, masked))
        at = int(np.where(masked, scores, -1).argmax())
        if masked[at] and (one.best is None or scores[at] > one.best.score):
            name, rle = row["frame_names"][at].as_py(), row["masks"][at].as_py()
            one.best = Best(float(scores[at]), name, float(times[at]), rle)

    def summary(self, video: str) -> VideoSummary:
        expressions = sorted(self.expressions.items(), key=lambda one: number_order(one[0]))
        return VideoSummary(
            video=video,
            source=self.row["source"],
            size=self.row["size"],
            frames=max(one.frames for one in self.expressions.values()),
            seconds=self.end - self.start,
            fps=self.row["fps"],
            first_frame=self.first_frame,
            first_time=float(self.start),
            expressions=tuple(self._expression_summary(name, one) for name, one in expressions),
        )

    def _expression_summary(self, name: str, one: _Expression) -> ExpressionSummary:
        scores, masked = _curve(np.concatenate(one.bins, axis=1), self.start, self.end)
        status: Status = "partial" if "partial" in one.statuses else "ok" if "ok" in one.statuses else "absent"
        visible = one.masked / one.frames
        score = one.score / one.frames
        note = "; ".join(one.notes)
        return ExpressionSummary(name, one.text, status, note, score, one.peak, visible, scores, masked, one.best)


def _times(row: dict[str, Any]) -> Float[np.ndarray, " t"]:
    """Returns the times of the row's frames in seconds; evenly spaced if the row has no time stamps."""
    if row["timestamps"]:
        return np.asarray(row["timestamps"], np.float64)
    return (row["start_frame"] + np.arange(len(row["scores"]))) / (row["fps"] or _UNTIMED_FPS)


def _binned(
    times: Float[np.ndarray, " t"], scores: Float[np.ndarray, " t"], masked: Bool[np.ndarray, " t"]
) -> Float[np.ndarray, "4 bins"]:
    """Bins consecutive frames: time of the first frame, number of frames, sum of scores, number of masks."""
    edges = np.linspace(0, len(times), min(_BINS, len(times)) + 1).astype(np.intp)
    sums = [np.add.reduceat(values, edges[:-1]) for values in (scores, masked.astype(np.float64))]
    return np.stack([times[edges[:-1]], np.diff(edges), *sums]).astype(np.float64)


def _curve(bins: Float[np.ndarray, "4 bins"], start: float, end: float) -> tuple[tuple[int, ...], str]:
    """Returns mean scores in per cent, and the presence of a mask, at evenly spaced times from start to end."""
    columns = min(COLUMNS, bins.shape[1])
    where = ((bins[0] - start) / (end - start) * columns + 1e-6).astype(np.intp).clip(0, columns - 1)
    frames, scores, masks = (np.bincount(where, weights=values, minlength=columns) for values in bins[1:])
    # A frame is shown until the next one: a column without frames repeats the one before.
    known = np.maximum.accumulate(np.where(frames > 0, np.arange(columns), 0))
    means = np.divide(scores, frames, out=np.zeros(columns), where=frames > 0)[known]
    shown = (masks > 0)[known]
    return tuple((100 * means).round().astype(int).clip(0, 100).tolist()), "".join("01"[one] for one in shown.tolist())
