"""The writing stage of predict: a Parquet file for every unit of work."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files import Folder, storage_retries
from pipelines.inference.answers import Answer, prediction_from
from pipelines.inference.messages import AnswersHeader, decode, decode_answers, encode
from pipelines.inference.quarantine import write_failures
from pipelines.ledger import PREDICTIONS
from pipelines.predictions import predictions_table


@dataclass(frozen=True, slots=True)
class UnitDone:
    """Event: the file of a unit is written.

    Attributes:
        failed: videos, images or expressions that could not be used.
        videos, frames, expressions: how many were predicted.
        crashes: predictors that crashed on the unit before.
        waited, busy: seconds that its predictor waited for it, and worked on it.
        retries: requests that were repeated because a store was too busy.
    """

    unit: str
    failed: int
    videos: int
    frames: int
    expressions: int
    crashes: int
    waited: float
    busy: float
    retries: int = 0


@dataclass(frozen=True, slots=True)
class WriteStage:
    """A stage that writes a Parquet file for each unit, complete or not at all; failures are written before it.

    Attributes:
        out: folder of the run.
    """

    out: Folder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a `UnitDone` for each unit, once its files are written."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, AnswersHeader)
            yield batch.slice(row, 1) if header is None else encode(self._write(header, decode_answers(payload)))

    def _write(self, header: AnswersHeader, answers: list[list[Answer]]) -> UnitDone:
        failures = [*header.failures, *chain.from_iterable(header.failed.values())]
        if failures:
            write_failures(self.out, header.unit, failures)
        if any(answers) or not failures:
            table = predictions_table(
                [
                    prediction_from(record, answer, header.fingerprint)
                    for record, some in zip(header.records, answers, strict=True)
                    for answer in some
                ]
            )
            with self.out.output(f"{PREDICTIONS}/{header.unit}.parquet") as stream:
                pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
        if not failures:
            write_failures(self.out, header.unit, [])
        return UnitDone(
            unit=header.unit,
            failed=len(failures),
            videos=len(header.records),
            frames=header.frames,
            expressions=sum(map(len, answers)),
            crashes=header.crashes,
            retries=msgspec.json.decode(header.context, type=int) + storage_retries(),
            waited=header.waited,
            busy=header.busy,
        )
