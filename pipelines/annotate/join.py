"""The last step of annotation: the windows of an expression group become its rows, in one file."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pyarrow.parquet as pq

from pipelines.annotate.layout import ExpressionGroup, GroupFile, remove_windows
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.files import Folder
from pipelines.predictions import PREDICTION_SCHEMA, Prediction, prediction_of, predictions_table
from sgmg.masks import rle_area


@dataclass(frozen=True, slots=True)
class JoinResult:
    """The result of joining an expression group. Its fields are also keys in the marker on disk.

    Attributes:
        frames: of the video, with masks or without.
        sentences: expressions of the group.
        absent: those of them whose object is in no frame.
        note: which parts of the video are missing; empty if none is.
    """

    frames: int
    sentences: int
    absent: int
    note: str


@dataclass(frozen=True, slots=True)
class Marker(GroupFile):
    """The file that exists once a result is complete: the group, the version of the video, and the result.

    Attributes:
        fingerprint: of the video file.
        joined: what the group was joined to.
    """

    fingerprint: str
    joined: JoinResult


def read_marker(out: Folder, path: str) -> Marker:
    """Returns the marker at a path in the folder of the run."""
    return msgspec.json.decode(out.read(path), type=Marker)


def join_group(
    group: ExpressionGroup,
    windows: Sequence[int],
    fingerprint: str,
    out: Folder,
    settings: JoinSettings,
    missing: str = "",
) -> JoinResult:
    """Writes the rows of an expression group. If nothing is missing, writes its marker and deletes its windows.

    A retry or a second run gives the same result.

    Args:
        group: whose windows are written.
        windows: their numbers.
        fingerprint: of the video file.
        out: folder of the run.
        settings: how windows become tracks.
        missing: which windows are missing and why; the next run tries them again.

    Raises:
        FileNotFoundError: a window does not exist.
        ValueError: a window is damaged.
    """
    if out.has(group.marker) and out.has(group.result):  # an earlier attempt was killed after this point
        remove_windows(out, group)
        return read_marker(out, group.marker).joined
    predictions = (_window(out, group, number) for number in sorted(windows))
    frames, notes = 0, []
    present: set[str] = set()
    with out.output(group.result) as stream, pq.ParquetWriter(stream, PREDICTION_SCHEMA, compression="zstd") as writer:
        for rows in join_windows(predictions, settings, missing):
            writer.write_table(predictions_table(rows))
            frames += len(rows[0].frame_names)
            notes += [row.note for row in rows[:1] if row.status == "partial"]
            present |= {row.expression for row in rows if _has_mask(row)}
    result = JoinResult(frames, len(group.expressions), len(group.expressions) - len(present), "; ".join(notes))
    if not missing:
        stored = group.to_file()
        marker = Marker(stored.video, stored.name, stored.sentences, fingerprint, result)
        out.write(group.marker, msgspec.json.encode(marker))
        remove_windows(out, group)
    return result


def _has_mask(row: Prediction) -> bool:
    """Returns whether a row has a mask that is not empty."""
    size = (row.height, row.width)
    return any(rle_area(rle, size) for rle in set(row.queries[0].rle))


def _window(out: Folder, group: ExpressionGroup, number: int) -> list[Prediction]:
    with out.parquet(group.window(number)) as parquet:
        rows = parquet.read(use_threads=False).to_pylist()
    return sorted(map(prediction_of, rows), key=lambda row: row.expression)
