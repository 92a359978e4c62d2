"""The decoding stage of predict: reads row groups of prepared Parquet, and decodes and resizes their frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.inference.messages import decode_items, encode_frames
from pipelines.inference.model_frames import model_frames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.quarantine import Failure
from pipelines.manifest import read_rows
from pipelines.predict.plan import Part, Unit
from pipelines.records import record_of


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """A stage that turns parts of a prepared dataset into decoded frames.

    Attributes:
        data: folder of the dataset.
        protocol: which frames are decoded, and at which size.
    """

    data: Folder
    protocol: InferenceProtocol

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a message of decoded frames for each unit, so that a predictor takes units one at a time."""
        for part in decode_items(batch, Part):
            try:
                rows = read_rows(self.data, part.file, part.row_group)
            except (OSError, ValueError, pa.ArrowException) as error:
                reason = f"{self.data.path(part.file)}, row group {part.row_group}: {error}. Prepare the data again."
                for unit in part.units:
                    yield encode_frames(unit.name, [], [Failure(video, "read", reason) for video in unit.videos])
                continue
            for unit in part.units:
                yield self._decode(part, unit, rows)

    def _decode(self, part: Part, unit: Unit, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        frames, failures = [], []
        for row, video in zip(unit.rows, unit.videos, strict=True):
            try:
                if row >= len(rows) or rows[row]["video"] != video:
                    where = f"{self.data.path(part.file)}, row group {part.row_group}, row {row}"
                    raise BadItem(video, "read", f"{where} is not what the manifest says. Prepare the data again.")
                frames.append(model_frames(record_of(rows[row]), self.protocol))
            except BadItem as error:
                failures.append(Failure(video, error.stage, error.reason))
            except ValueError as error:
                failures.append(Failure(video, "read", str(error)))
        return encode_frames(unit.name, frames, failures)
