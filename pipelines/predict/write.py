"""The last stage of bulk inference: a Parquet file for every unit of work."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED, PREDICTIONS


@dataclass(frozen=True, slots=True)
class WriteStage:
    """Predictions → one Parquet file a unit, whole or not there; what failed, noted beside it before that."""

    out: Folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Unit, failures and count, when the files are there."""
        for row in batch.to_pylist():
            note = f"{FAILED}/{row['unit']}.json"
            failures = json.loads(row["failures"])
            table = pa.ipc.open_stream(row["predictions"]).read_all()
            if failures:
                self.out.write(note, row["failures"].encode())
            if len(table) or not failures:
                with self.out.output(f"{PREDICTIONS}/{row['unit']}.parquet") as stream:
                    pq.write_table(table, stream, compression="zstd")
            if not failures and self.out.has(note):
                self.out.remove(note)
        return batch.drop_columns("predictions")
