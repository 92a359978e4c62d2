"""The fourth stage of annotation: a Parquet file for every window and batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.annotate.layout import ExpressionGroup
from pipelines.files import Folder
from pipelines.inference.messages import FOUND, NEWS, found_of, open_parcel, parcel


@dataclass(frozen=True, slots=True)
class WriteStage:
    """What was found → a file for every window and batch, whole or not there; then news of it."""

    out: Folder

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a piece of news."""
        for row in range(len(batch)):
            kind, about, data = open_parcel(batch, row)
            if kind == FOUND:
                self._write(about, found_of(data))
                about = about["news"]
            yield parcel(NEWS, about)

    def _write(self, about: dict[str, Any], table: pa.Table) -> None:
        for plain in about["batches"]:
            one = ExpressionGroup.from_plain(plain)
            ids = pa.array([sentence.id for sentence in one.sentences])
            rows = table.filter(cast(Any, pc).is_in(table["expression"], value_set=ids))
            with self.out.output(one.window(about["news"]["window"])) as stream:
                pq.write_table(rows, stream, compression="zstd")
