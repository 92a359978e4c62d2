"""The last stage of annotation: the windows of one batch become its rows, in one file that is whole or not there."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.parquet as pq

from pipelines.annotate.layout import ExpressionGroup, remove_windows
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.files import Folder
from pipelines.predictions import PREDICTION_SCHEMA, Prediction, prediction_of, predictions_table
from sgmg.masks import rle_area


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What came of a batch.

    Attributes:
        frames: of the video, with masks or without.
        absent: sentences whose object was nowhere.
        note: what is missing of the video; empty where it is whole.
    """

    frames: int
    sentences: int
    absent: int
    note: str


def join_batch(
    batch: ExpressionGroup,
    windows: Sequence[int],
    fingerprint: str,
    out: Folder,
    rules: JoinSettings,
    missing: str = "",
) -> JoinResult:
    """Writes the rows of a batch; where nothing is missing, also the marker that says so, and its windows go.

    Done again, by a retry or a second run, it gives the same.

    Args:
        batch: whose windows are all there.
        windows: their numbers.
        fingerprint: of the video.
        out: folder of the run.
        rules: how windows become tracks.
        missing: windows that could not be had, and why: these are tried again in the next run.

    Raises:
        FileNotFoundError: a window is not there.
        ValueError: a window is damaged.
    """
    if out.has(batch.marker) and out.has(batch.result):  # the attempt before got so far
        remove_windows(out, batch)
        return JoinResult(**json.loads(out.read(batch.marker))["joined"])
    found = (_window(out, batch, number) for number in sorted(windows))
    frames, notes = 0, []
    seen: set[str] = set()
    with out.output(batch.result) as stream, pq.ParquetWriter(stream, PREDICTION_SCHEMA, compression="zstd") as writer:
        for rows in join_windows(found, rules, missing):
            writer.write_table(predictions_table(rows))
            frames += len(rows[0].frame_names)
            notes += [row.note for row in rows[:1] if row.status == "partial"]
            seen |= {row.expression for row in rows if _shows(row)}
    told = JoinResult(frames, len(batch.sentences), len(batch.sentences) - len(seen), "; ".join(notes))
    if not missing:
        out.write(batch.marker, json.dumps(_marker(batch, fingerprint, told)).encode())
        remove_windows(out, batch)
    return told


def _shows(row: Prediction) -> bool:
    """Whether a row has a mask that is not empty."""
    size = (row.height, row.width)
    return any(rle_area(rle, size) for rle in set(row.queries[0].rle))


def _window(out: Folder, batch: ExpressionGroup, number: int) -> list[Prediction]:
    with out.open(batch.window(number)) as source, pq.ParquetFile(source) as parquet:
        rows = parquet.read(use_threads=False).to_pylist()
    return sorted(map(prediction_of, rows), key=lambda row: row.expression)


def _marker(batch: ExpressionGroup, fingerprint: str, told: JoinResult) -> dict[str, Any]:
    return {**batch.to_plain(), "fingerprint": fingerprint, "joined": asdict(told)}
