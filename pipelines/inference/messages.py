"""The messages that the stages of bulk inference send to one another: Arrow tables of one row.

A message has a kind (the name of its header's class), a header (that dataclass, as JSON) and a payload (bytes, never
copied where they already are one buffer). The driver and the stages that pass a message on read its header at most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from jaxtyping import Int

from pipelines.errors import Failure
from pipelines.inference.answers import Answer, Compressed
from pipelines.inference.model_frames import ModelFrames
from pipelines.records import Record
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo
from pipelines.video.segments import DecodeUnit

T = TypeVar("T")

ITEM = "item"
"""Column of the rows that a stream begins with: one dataclass each, as JSON."""

_SCHEMA = pa.schema([("kind", pa.string()), ("header", pa.binary()), ("payload", pa.large_binary())])


def encode_item(item: Any) -> dict[str, bytes]:
    """Returns a dataclass as a row for the first stage of a stream."""
    return {ITEM: msgspec.json.encode(item)}


def decode_items(batch: pa.Table, item_type: type[T]) -> Iterator[T]:
    """Yields the dataclasses that `encode_item` was given."""
    for item in batch[ITEM].to_pylist():
        yield msgspec.json.decode(item, type=item_type)


def encode(header: Any, payload: Any = b"") -> pa.Table:
    """Returns a message.

    Args:
        header: a dataclass of plain values and other such dataclasses.
        payload: anything that holds bytes in one buffer; not copied.
    """
    buffer = pa.py_buffer(payload)
    offsets = pa.py_buffer(np.array([0, buffer.size], dtype=np.int64))
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])
    return pa.table([[type(header).__name__], [msgspec.json.encode(header)], column], schema=_SCHEMA)


def decode(batch: pa.Table, row: int, *header_types: type[T]) -> tuple[T | None, memoryview]:
    """Returns header and payload of a message; no header if its kind is none of these. The payload is not copied."""
    header = decode_header(batch["kind"][row].as_py(), batch["header"][row].as_py(), *header_types)
    return header, _payload(batch, row)


def _payload(batch: pa.Table, row: int) -> memoryview:
    """Returns a view of the payload of a row; the scalar of an Arrow column would be a copy of it."""
    values = batch["payload"].slice(row, 1).chunk(0)
    _, offsets, data = values.buffers()
    start, stop = np.frombuffer(offsets, np.int64)[values.offset : values.offset + 2]
    return memoryview(data or b"")[start:stop]


def decode_header(kind: str, header: bytes, *header_types: type[T]) -> T | None:
    """Returns the header of a message of one of these kinds; None for a message of another kind."""
    for header_type in header_types:
        if header_type.__name__ == kind:
            return msgspec.json.decode(header, type=header_type)
    return None


def encode_context(context: Any) -> msgspec.Raw:
    """Returns what a header carries for a later stage, which the stages between do not read."""
    return msgspec.Raw(msgspec.json.encode(context))


@dataclass(frozen=True, slots=True)
class UnitHeader:
    """The fields of a `DecodeUnit` that are no arrays, and what the decoding stage needs besides.

    Attributes:
        bytes: of its arrays in the payload.
        names: keys of the frames, where they are names; else None, and they are in the payload.
        context: for the decoding stage.
    """

    video: Video
    info: VideoInfo
    number: int
    first_window: int
    bytes: int
    names: tuple[str, ...] | None
    windows: tuple[tuple[int, int, int], ...]
    index_keys: bool
    seek: bool
    note: str
    shared: int
    context: msgspec.Raw


@dataclass(frozen=True, slots=True)
class UnitsHeader:
    """Units that are decoded by one task, and what else is known of the shard, for a later stage."""

    units: tuple[UnitHeader, ...]
    context: msgspec.Raw


def encode_units(units: Sequence[tuple[DecodeUnit, Any]], context: Any) -> pa.Table:
    """Returns the message of units that are to be decoded, each with its context.

    Its payload holds their arrays one after the other, compressed: hours of video are a megabyte.
    """
    headers, arrays = [], []
    for unit, of_unit in units:
        names = unit.keys if isinstance(unit.keys, tuple) else None
        columns = [unit.times.astype(np.float64).view(np.int64), unit.indices.astype(np.int64)]
        if not isinstance(unit.keys, tuple):
            columns.append(unit.keys.astype(np.int64))
        arrays.append(_compressed(np.stack(columns)))
        headers.append(
            UnitHeader(
                video=unit.video,
                info=unit.info,
                number=unit.number,
                first_window=unit.first_window,
                bytes=len(arrays[-1]),
                names=names,
                windows=unit.windows,
                index_keys=unit.index_keys,
                seek=unit.seek,
                note=unit.note,
                shared=unit.shared,
                context=encode_context(of_unit),
            )
        )
    return encode(UnitsHeader(tuple(headers), encode_context(context)), b"".join(arrays))


def decode_units(header: UnitsHeader, payload: memoryview) -> Iterator[tuple[DecodeUnit, msgspec.Raw]]:
    """Yields the units that `encode_units` was given, and their contexts."""
    start = 0
    for one in header.units:
        columns = _decompressed(payload[start : start + one.bytes])
        start += one.bytes
        unit = DecodeUnit(
            video=one.video,
            info=one.info,
            number=one.number,
            first_window=one.first_window,
            keys=columns[2] if one.names is None else one.names,
            times=columns[0].view(np.float64),
            indices=columns[1],
            windows=one.windows,
            index_keys=one.index_keys,
            seek=one.seek,
            note=one.note,
            shared=one.shared,
        )
        yield unit, one.context


def _compressed(columns: Int[np.ndarray, "c n"]) -> bytes:
    """Compresses rising columns of 8 bytes: steps from number to number are alike, most of all in their high bytes."""
    steps = np.diff(columns, axis=1, prepend=0)
    by_place = steps.view(np.uint8).reshape(*columns.shape, 8).transpose(0, 2, 1)
    return msgspec.msgpack.encode(Compressed.of(by_place))


def _decompressed(data: memoryview) -> Int[np.ndarray, "c n"]:
    by_place = msgspec.msgpack.decode(data, type=Compressed).array()
    steps = np.ascontiguousarray(by_place.transpose(0, 2, 1)).view(np.int64)
    return steps.reshape(steps.shape[:2]).cumsum(axis=1)


@dataclass(frozen=True, slots=True)
class FramesInfo:
    """One `ModelFrames` without its pixels, whose shape is t h w 3."""

    record: Record
    numbers: tuple[int, ...]
    shape: tuple[int, int, int, int]
    one_of_many: bool = False


@dataclass(frozen=True, slots=True)
class FramesHeader:
    """Decoded frames of one unit of work: some videos or images, or windows of some videos.

    Attributes:
        unit: name that no other unit of the run has; predictors that crash are counted by it.
        frames: one for each video, in the order of the pixels in the payload.
        failures: videos of the unit that could not be decoded.
        context: for the writing stage.
    """

    unit: str
    frames: tuple[FramesInfo, ...]
    failures: tuple[Failure, ...]
    context: msgspec.Raw


def encode_frames(
    unit: str, frames: Sequence[ModelFrames], failures: Sequence[Failure] = (), context: Any = None
) -> pa.Table:
    """Returns the message of decoded frames, for the predictor. The pixels of a single video are not copied."""
    infos = tuple(FramesInfo(one.record, one.numbers, one.frames.shape, one.one_of_many) for one in frames)
    pixels = frames[0].frames if len(frames) == 1 else b"".join(one.frames.data for one in frames)
    return encode_pixels(unit, infos, pixels, failures, context)


def encode_pixels(
    unit: str, infos: Sequence[FramesInfo], pixels: Any, failures: Sequence[Failure] = (), context: Any = None
) -> pa.Table:
    """Returns the message of frames whose pixels lie in one buffer already, one after the other; not copied."""
    return encode(FramesHeader(unit, tuple(infos), tuple(failures), encode_context(context)), pixels)


def decode_frames(header: FramesHeader, payload: memoryview) -> list[ModelFrames]:
    """Returns the frames that `encode_frames` was given; their pixels are views of the payload."""
    pixels = np.frombuffer(payload, np.uint8)
    ends = np.cumsum([np.prod(info.shape) for info in header.frames], dtype=np.int64)
    parts = np.split(pixels, ends[:-1])
    return [
        ModelFrames(info.record, info.numbers, part.reshape(info.shape), info.one_of_many)
        for info, part in zip(header.frames, parts, strict=bool(header.frames))
    ]


@dataclass(frozen=True, slots=True)
class AnswersHeader:
    """Header of the answers to one unit.

    Attributes:
        unit, context: those of the `FramesHeader`.
        failures: videos that could not be decoded.
        records: of each `FramesInfo`, in their order.
        failed: why there are no answers, or not to some expressions, by the index of the record.
        fingerprint: of checkpoint and settings.
        crashes: predictors that crashed on this unit before.
        waited, busy: seconds that the predictor waited for the unit, and worked on it.
    """

    unit: str
    failures: tuple[Failure, ...]
    records: tuple[Record, ...]
    failed: dict[int, list[Failure]]
    fingerprint: str
    crashes: int
    waited: float
    busy: float
    context: msgspec.Raw

    @property
    def frames(self) -> int:
        """Frames that were predicted."""
        return sum(len(record.frame_names) for record in self.records)


def encode_answers(header: AnswersHeader, answers: Sequence[Sequence[Answer]]) -> pa.Table:
    """Returns the message of the answers to a unit, some for each record, for the writing stage."""
    return encode(header, msgspec.msgpack.encode(answers))


def decode_answers(payload: memoryview) -> list[list[Answer]]:
    """Returns the answers that `encode_answers` was given."""
    return msgspec.msgpack.decode(payload, type=list[list[Answer]])
