"""What the workers of bulk inference do: read and decode, predict, write. Between them travel Arrow tables of a row."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from pipelines.asked import AskedFrames, asked_frames
from pipelines.benchmarks import Protocol
from pipelines.files import Folder
from pipelines.predict_plan import FAILED, PREDICTIONS, Failure, Part, Unit
from pipelines.predict_recipe import Recipe
from pipelines.predictions import Prediction, predictions_table
from pipelines.prepared import read_rows
from pipelines.problems import BadItem
from pipelines.records import record_of

MOST_DEATHS = 4
"""Predictors that may die of one unit before it is left alone: else it would stop the run for ever."""
_DEADLY = (
    f"{MOST_DEATHS} predictors died of it, most likely for want of memory. Give them more: fewer --actors, a smaller "
    f"--short-side, or another machine."
)

_DECODED = pa.schema(
    [
        ("unit", pa.string()),
        ("failures", pa.string()),
        ("records", pa.list_(pa.string())),
        ("numbers", pa.list_(pa.list_(pa.int32()))),
        ("shapes", pa.list_(pa.list_(pa.int32()))),
        ("frames", pa.list_(pa.large_binary())),
    ]
)
_PREDICTED = pa.schema(
    [("unit", pa.string()), ("failures", pa.string()), ("table", pa.large_binary()), ("count", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Decode:
    """Row groups of prepared Parquet → units of decoded frames."""

    data: Folder
    protocol: Protocol

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a unit, so that a predictor takes them one at a time."""
        for text in batch["part"].to_pylist():
            part = Part.from_json(text)
            try:
                rows = read_rows(self.data, part.file, part.row_group)
            except (OSError, ValueError, pa.ArrowException) as error:
                reason = f"{self.data.path(part.file)}, row group {part.row_group}: {error}. Prepare the data again."
                for unit in part.units:
                    yield _packed(unit, [], [Failure(video, "read", reason) for video in unit.videos])
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
                asked.append(asked_frames(record_of(rows[place]), self.protocol))
            except BadItem as error:
                failures.append(Failure(video, error.stage, error.reason))
            except ValueError as error:
                failures.append(Failure(video, "read", str(error)))
        return _packed(unit, asked, failures)


class Attempts:
    """How often each unit was begun and not ended: its predictor died. One actor for all of a run."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, unit: str) -> int:
        """How many predictors died of it so far."""
        self._begun[unit] += 1
        return self._begun[unit] - 1

    def end(self, unit: str) -> None:
        """It is well: done again for another reason, it counts from 0."""
        del self._begun[unit]


class Predict:
    """Decoded units → predictions. An actor: loads the model once, holds nothing between units."""

    def __init__(self, recipe: Recipe, attempts: Any) -> None:
        torch.set_num_threads(recipe.threads)
        self._attempts = attempts
        self._predictor = recipe.predictor()
        self._idle_since = time.monotonic()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row a unit, with its predictions as an Arrow table and what there is to count."""
        for row in range(len(batch)):
            started = time.monotonic()
            waited = started - self._idle_since
            unit, asked, failures = _unpacked(batch, row)
            died: Any = ray.get(self._attempts.begin.remote(unit))
            if died < MOST_DEATHS:
                predictions = self._predictions(asked, failures)
            else:
                predictions = []
                failures += [Failure(one.record.video, "predict", _DEADLY) for one in asked]
            ray.get(self._attempts.end.remote(unit))
            self._idle_since = time.monotonic()
            count = {
                "videos": len(asked),
                "frames": sum(len(one.record.frame_names) for one in asked),
                "expressions": len(predictions),
                "died": died,
                "waited": waited,
                "busy": self._idle_since - started,
            }
            yield pa.table(
                {
                    "unit": [unit],
                    "failures": [_failures_json(failures)],
                    "table": [_table_bytes(predictions_table(predictions))],
                    "count": [json.dumps(count)],
                },
                schema=_PREDICTED,
            )

    def _predictions(self, asked: Sequence[AskedFrames], failures: list[Failure]) -> list[Prediction]:
        """Of what can be used; the rest is added to the failures."""
        predictions: list[Prediction] = []
        for one in asked:
            try:
                predictions += self._predictor.answer(one)
            except BadItem as error:
                failures.append(Failure(error.video, error.stage, error.reason))
        return predictions


@dataclass(frozen=True, slots=True)
class Write:
    """Predictions → one Parquet file a unit, whole or not there; what failed, noted beside it before that."""

    out: Folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Unit, failures and count, when the files are there."""
        for row in batch.to_pylist():
            note = f"{FAILED}/{row['unit']}.json"
            failures = json.loads(row["failures"])
            table = pa.ipc.open_stream(row["table"]).read_all()
            if failures:
                self.out.write(note, row["failures"].encode())
            if len(table) or not failures:
                with self.out.output(f"{PREDICTIONS}/{row['unit']}.parquet") as stream:
                    pq.write_table(table, stream, compression="zstd")
            if not failures and self.out.has(note):
                self.out.remove(note)
        return batch.drop_columns("table")


def _packed(unit: Unit, asked: Sequence[AskedFrames], failures: Sequence[Failure]) -> pa.Table:
    """A table of one row; the pixels of a single video are not copied."""
    offsets = np.cumsum([0, *(one.frames.nbytes for one in asked)], dtype=np.int64)
    pixels = pa.py_buffer(asked[0].frames if len(asked) == 1 else b"".join(one.frames.data for one in asked))
    blobs = pa.Array.from_buffers(pa.large_binary(), len(asked), [None, pa.py_buffer(offsets), pixels])
    columns = {
        "unit": [unit.name],
        "failures": [_failures_json(failures)],
        "records": [[json.dumps(_without_bytes(one)) for one in asked]],
        "numbers": [[one.numbers for one in asked]],
        "shapes": [[one.frames.shape for one in asked]],
        "frames": pa.LargeListArray.from_arrays([0, len(asked)], blobs).cast(_DECODED.field("frames").type),
    }
    return pa.table(columns, schema=_DECODED)


def _unpacked(batch: pa.Table, row: int) -> tuple[str, list[AskedFrames], list[Failure]]:
    def column(name: str) -> Any:
        return batch[name][row]

    blobs = column("frames").values
    asked = []
    for place, text in enumerate(column("records").as_py()):
        record = record_of(json.loads(text) | {"frames": [b""] * len(json.loads(text)["frame_names"])})
        pixels = np.frombuffer(blobs[place].as_buffer(), dtype=np.uint8)
        frames = pixels.reshape(column("shapes")[place].as_py())
        asked.append(AskedFrames(record, tuple(column("numbers")[place].as_py()), frames))
    failures = [Failure(**values) for values in json.loads(column("failures").as_py())]
    return column("unit").as_py(), asked, failures


def _without_bytes(one: AskedFrames) -> dict[str, Any]:
    return {name: value for name, value in one.record.to_row().items() if name != "frames"}


def _failures_json(failures: Sequence[Failure]) -> str:
    return json.dumps([asdict(failure) for failure in failures], ensure_ascii=False)


def _table_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
