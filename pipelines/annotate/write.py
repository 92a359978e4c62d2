"""The writing stage of annotation: a Parquet file for every window and expression group."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.annotate.decode import WindowContext
from pipelines.annotate.events import WindowDone
from pipelines.files import Folder
from pipelines.inference.messages import PredictionsHeader, decode, decode_predictions, encode
from pipelines.inference.quarantine import Failure


@dataclass(frozen=True, slots=True)
class WriteStage:
    """A stage that writes the predictions of a window: a file for each expression group, complete or not at all.

    Attributes:
        out: folder of the run.
    """

    out: Folder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a `WindowDone` for each window once it is written. Other messages pass through unchanged."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, PredictionsHeader)
            yield batch.slice(row, 1) if header is None else encode(self._write(header, decode_predictions(payload)))

    def _write(self, header: PredictionsHeader, table: pa.Table) -> WindowDone:
        context = msgspec.json.decode(header.context, type=WindowContext)
        if len(table):
            table = _with_damage(table, context.damage)
            for group in context.groups:
                ids = pa.array([expression.id for expression in group.expressions])
                rows = table.filter(cast(Any, pc).is_in(table["expression"], value_set=ids))
                with self.out.output(group.window(context.window)) as stream:
                    pq.write_table(rows, stream, compression="zstd")
        return WindowDone(
            video=context.video.id,
            window=context.window,
            frames=header.frames,
            crashes=header.crashes,
            waited=header.waited,
            busy=header.busy,
            failure=_failure(header, context),
        )


def _with_damage(table: pa.Table, damage: str) -> pa.Table:
    """Returns the rows with the damage as their note, and partial if there is any. The join reads notes as damage."""
    columns = {"note": damage, "status": "partial"} if damage else {"note": ""}
    for name, value in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), pa.array([value] * len(table), pa.string()))
    return table


def _failure(header: PredictionsHeader, context: WindowContext) -> Failure | None:
    """Returns the failure of a window, its reason with the part of the video; None if the window is predicted."""
    for failure in header.failures:
        reason = f"{context.start:.2f} to {context.stop:.2f} s: {failure.reason}"
        return Failure(context.video.path, failure.stage, reason)
    return None
