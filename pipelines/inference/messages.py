"""What travels between the workers of annotation: Arrow tables of one row, a segment, a window or a piece of news."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from pipelines.inference.model_frames import ModelFrames
from pipelines.predictions import Prediction, predictions_table
from pipelines.records import Record, record_of
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo
from pipelines.video.segments import DecodeUnit

NEWS, SEGMENT, WINDOW, FOUND = "news", "segment", "window", "found"
"""Kinds of parcels: only the first is read by whoever runs the stream, the others are for the next stage."""

_SCHEMA = pa.schema([("kind", pa.string()), ("about", pa.string()), ("data", pa.large_binary())])

About = dict[str, Any]
"""Plain values."""


def parcel(kind: str, about: Mapping[str, Any], data: Any = b"") -> pa.Table:
    """A table of one row; the data, anything that holds bytes, are not copied."""
    buffer = pa.py_buffer(data)
    offsets = pa.py_buffer(np.array([0, buffer.size], dtype=np.int64))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])
    return pa.table([[kind], [json.dumps(about, ensure_ascii=False)], column], schema=_SCHEMA)


def open_parcel(batch: pa.Table, row: int) -> tuple[str, About, memoryview]:
    """Kind, about and data of a row; the data stay where they lie."""
    data = batch["data"][row].as_buffer()
    return batch["kind"][row].as_py(), json.loads(batch["about"][row].as_py()), memoryview(data)


def segment_parcel(segment: DecodeUnit, about: Mapping[str, Any]) -> pa.Table:
    """A segment and whatever goes with it."""
    named = isinstance(segment.keys, tuple)
    numbers = [] if isinstance(segment.keys, tuple) else [segment.keys.astype(np.int64).tobytes()]
    plain = {
        "video": asdict(segment.video),
        "info": asdict(segment.info),
        "number": segment.number,
        "first_window": segment.first_window,
        "names": segment.keys if named else None,
        "windows": segment.windows,
        "counted": segment.counted,
        "seek": segment.seek,
        "note": segment.note,
    }
    data = [segment.times.astype(np.float64).tobytes(), segment.indices.astype(np.int64).tobytes(), *numbers]
    return parcel(SEGMENT, {**about, "segment": plain}, b"".join(data))


def segment_of(about: Mapping[str, Any], data: memoryview) -> DecodeUnit:
    """The segment of a parcel."""
    plain = about["segment"]
    columns = np.frombuffer(data, np.int64).reshape(2 if plain["names"] is not None else 3, -1)
    return DecodeUnit(
        video=Video(**plain["video"]),
        info=VideoInfo(**plain["info"]),
        number=plain["number"],
        first_window=plain["first_window"],
        keys=columns[2] if plain["names"] is None else tuple(plain["names"]),
        times=columns[0].view(np.float64),
        indices=columns[1],
        windows=tuple((first, past, shot) for first, past, shot in plain["windows"]),
        counted=plain["counted"],
        seek=plain["seek"],
        note=plain["note"],
    )


def window_parcel(record: Record, frames: UInt8[np.ndarray, "t h w 3"], about: Mapping[str, Any]) -> pa.Table:
    """The frames of a window at the size the model sees, and what is asked of them."""
    row = {name: value for name, value in record.to_row().items() if name != "frames"}
    data = np.ascontiguousarray(frames).reshape(-1)
    return parcel(WINDOW, {**about, "record": row, "shape": frames.shape}, data)


def window_of(about: Mapping[str, Any], data: memoryview) -> ModelFrames:
    """The window of a parcel."""
    t = len(about["record"]["frame_names"])
    record = record_of(about["record"] | {"frames": [b""] * t})
    return ModelFrames(record, tuple(range(t)), np.frombuffer(data, np.uint8).reshape(about["shape"]))


def found_parcel(predictions: Sequence[Prediction], about: Mapping[str, Any]) -> pa.Table:
    """What was found in a window."""
    table, sink = predictions_table(list(predictions)), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return parcel(FOUND, about, sink.getvalue())


def found_of(data: memoryview) -> pa.Table:
    """The predictions of a parcel, as a table."""
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
