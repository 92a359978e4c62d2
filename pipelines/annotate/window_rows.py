"""Rows of windows: the answer to one expression in one window, from which the join makes the rows of predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from pipelines.inference.answers import Answer, prediction_from
from pipelines.predictions import PREDICTION_SCHEMA, QUERY, Prediction, QueryTrack, prediction_of
from pipelines.records import Record
from sgmg.masks import Size, rle_area, rle_shared_areas


@dataclass(frozen=True, slots=True)
class WindowRow:
    """The answer to one expression in one window.

    Attributes:
        row: with the query that scores best; with all queries if the join chooses frame by frame.
        every: all queries, with masks of `size`, if the join may choose another one; else none.
        size: that the model sees. A mask of 360x640 pixels takes some 500 bytes.
        best: index of the query of `row` in `every`.
        remark: what was decided in reading the frames; empty if nothing.
        after: name of the frame before its first one, if the window before has it and this window was made with it as
            context; else empty.
    """

    row: Prediction
    every: tuple[QueryTrack, ...] = ()
    size: Size = (0, 0)
    best: int = 0
    remark: str = ""
    after: str = ""

    def overlaps(self, t: int, before: str) -> Float[np.ndarray, " q"] | None:
        """Returns the IoU of the mask of each query in a frame with another mask; None if that is empty.

        Args:
            t: index of the frame.
            before: RLE of the other mask, of `size`; "" if there is none.
        """
        if not before or not (area := rle_area(before, self.size)):
            return None
        rles = [query.rle[t] for query in self.every]
        shared = rle_shared_areas(rles, before, self.size)
        return shared / (area + np.array([rle_area(rle, self.size) for rle in rles]) - shared)


WINDOW_SCHEMA = pa.schema(
    [
        *PREDICTION_SCHEMA,
        ("every", pa.list_(QUERY)),
        ("size", pa.list_(pa.int32())),
        ("best", pa.int32()),
        ("remark", pa.string()),
        ("after", pa.string()),
    ]
)
"""Schema of the files of stretches: the fields of the row, then the others of `WindowRow`."""


def window_row(record: Record, answer: Answer, fingerprint: str, damage: str, remark: str = "") -> WindowRow:
    """Returns the row of an answer; damage makes it partial, and the join reads notes as damage.

    Args:
        record: of the window.
        answer: to one of its expressions.
        fingerprint: of checkpoint and settings.
        damage: what is missing in the window; empty if nothing.
        remark: what was decided in reading it; empty if nothing.
    """
    row = replace(prediction_from(record, answer, fingerprint), note=damage)
    if damage:
        row = replace(row, status="partial")
    size = answer.coarse.size if answer.coarse else (0, 0)
    first = min(answer.frames)
    after = record.frame_names[first - 1] if first else ""
    return WindowRow(row, tuple(answer.every), size, answer.best, remark, after)


def windows_table(rows: Sequence[WindowRow]) -> pa.Table:
    """Converts the rows of a window to an Arrow table."""
    values = [
        one.row.to_row()
        | {"every": [asdict(query) for query in one.every], "size": one.size, "best": one.best}
        | {"remark": one.remark, "after": one.after}
        for one in rows
    ]
    return pa.Table.from_pylist(values, schema=WINDOW_SCHEMA)


def window_row_of(row: Mapping[str, Any]) -> WindowRow:
    """Makes a row of a window from one of Parquet.

    Raises:
        ValueError: the row has another schema version.
        msgspec.ValidationError: a value is of another type.
    """
    queries = msgspec.convert(row["every"], tuple[QueryTrack, ...])
    height, width = row["size"]
    said = (row.get(name) or "" for name in ("remark", "after"))  # windows that were written before have neither
    return WindowRow(prediction_of(row), queries, (height, width), row["best"], *said)
