"""What travels between the workers of bulk inference: Arrow tables of one row, a unit of work each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.quarantine import Failure
from pipelines.predict.plan import Unit
from pipelines.predictions import Prediction, predictions_table
from pipelines.records import record_of

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
    [("unit", pa.string()), ("failures", pa.string()), ("predictions", pa.large_binary()), ("count", pa.string())]
)


def decoded_parcel(unit: Unit, asked: Sequence[ModelFrames], failures: Sequence[Failure]) -> pa.Table:
    """A table of one row: the decoded frames of a unit, and what failed. Pixels of a single video are not copied."""
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


def open_decoded(batch: pa.Table, row: int) -> tuple[str, list[ModelFrames], list[Failure]]:
    """Unit, frames and failures of a row that `decoded_parcel` made; pixels stay where they lie."""

    def column(name: str) -> Any:
        return batch[name][row]

    blobs = column("frames").values
    asked = []
    for place, text in enumerate(column("records").as_py()):
        values = json.loads(text)
        record = record_of(values | {"frames": [b""] * len(values["frame_names"])})
        pixels = np.frombuffer(blobs[place].as_buffer(), dtype=np.uint8)
        frames = pixels.reshape(column("shapes")[place].as_py())
        asked.append(ModelFrames(record, tuple(column("numbers")[place].as_py()), frames))
    failures = [Failure(**values) for values in json.loads(column("failures").as_py())]
    return column("unit").as_py(), asked, failures


def _without_bytes(one: ModelFrames) -> dict[str, Any]:
    return {name: value for name, value in one.record.to_row().items() if name != "frames"}


def _failures_json(failures: Sequence[Failure]) -> str:
    return json.dumps([asdict(failure) for failure in failures], ensure_ascii=False)


def predicted_parcel(
    unit: str, failures: Sequence[Failure], predictions: Sequence[Prediction], count: Mapping[str, Any]
) -> pa.Table:
    """A table of one row: the predictions of a unit as an Arrow stream, what failed and what there is to count."""
    table, sink = predictions_table(list(predictions)), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    columns = {
        "unit": [unit],
        "failures": [_failures_json(failures)],
        "predictions": pa.array([sink.getvalue().to_pybytes()], pa.large_binary()),
        "count": [json.dumps(count)],
    }
    return pa.table(columns, schema=_PREDICTED)
