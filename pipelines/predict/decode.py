"""The decoding stage of predict: reads row groups of prepared Parquet, and decodes and resizes their frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import BadItem, DamagedFile, Failure
from pipelines.files import Folder, storage_retries
from pipelines.inference.messages import decode_items, encode_frames
from pipelines.inference.model_frames import model_frames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.manifest import read_rows
from pipelines.predict.plan import Unit
from pipelines.records import record_of


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """A stage that turns row groups of a prepared dataset into decoded frames.

    Attributes:
        data: folder of the dataset.
        protocol: which frames are decoded, and at which size.
    """

    data: Folder
    protocol: InferenceProtocol

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a message of decoded frames for each unit, so that a predictor takes units one at a time."""
        for unit in decode_items(batch, Unit):
            try:
                rows = read_rows(self.data, unit.file, unit.row_group)
            except (OSError, ValueError, OverflowError) as error:
                where = f"{self.data.path(unit.file)}, row group {unit.row_group}"
                reason = str(error) if isinstance(error, DamagedFile) else f"{where}: {error}. Prepare the data again."
                failures = [Failure(video, "read", reason) for video in unit.videos]
                yield encode_frames(unit.name, [], failures, storage_retries())
            else:
                yield self._decode(unit, rows)

    def _decode(self, unit: Unit, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        frames, failures = [], []
        for number, video in enumerate(unit.videos):
            try:
                if number >= len(rows) or rows[number]["video"] != video:
                    where = f"{self.data.path(unit.file)}, row group {unit.row_group}, row {number}"
                    raise BadItem(video, "read", f"{where} is not what the manifest says. Prepare the data again.")
                frames.append(model_frames(record_of(rows[number]), self.protocol))
            except BadItem as error:
                failures.append(Failure(video, error.stage, error.reason))
            except ValueError as error:
                failures.append(Failure(video, "read", str(error)))
        return encode_frames(unit.name, frames, failures, storage_retries())
