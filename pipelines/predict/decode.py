"""The first stage of bulk inference: reads row groups of prepared Parquet, and decodes and resizes their frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.inference.model_frames import model_frames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.quarantine import Failure
from pipelines.inference.unit_messages import decoded_parcel
from pipelines.manifest import read_rows
from pipelines.predict.plan import Part, Unit
from pipelines.records import record_of


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """Row groups of prepared Parquet → units of decoded frames."""

    data: Folder
    protocol: InferenceProtocol

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a unit, so that a predictor takes them one at a time."""
        for text in batch["part"].to_pylist():
            part = Part.from_json(text)
            try:
                rows = read_rows(self.data, part.file, part.row_group)
            except (OSError, ValueError, pa.ArrowException) as error:
                reason = f"{self.data.path(part.file)}, row group {part.row_group}: {error}. Prepare the data again."
                for unit in part.units:
                    yield decoded_parcel(unit, [], [Failure(video, "read", reason) for video in unit.videos])
                continue
            for unit in part.units:
                yield self._decoded(part, unit, rows)

    def _decoded(self, part: Part, unit: Unit, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        asked, failures = [], []
        for place, video in zip(unit.rows, unit.videos, strict=True):
            try:
                if place >= len(rows) or rows[place]["video"] != video:
                    where = f"{self.data.path(part.file)}, row group {part.row_group}, row {place}"
                    raise BadItem(video, "read", f"{where} is not what the manifest says. Prepare the data again.")
                asked.append(model_frames(record_of(rows[place]), self.protocol))
            except BadItem as error:
                failures.append(Failure(video, error.stage, error.reason))
            except ValueError as error:
                failures.append(Failure(video, "read", str(error)))
        return decoded_parcel(unit, asked, failures)
