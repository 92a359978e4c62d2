"""What travels between the stages arrives as it was sent."""

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import Failure
from pipelines.inference.answers import Answer, Compressed, Masks
from pipelines.inference.messages import (
    AnswersHeader,
    FramesHeader,
    UnitsHeader,
    decode,
    decode_answers,
    decode_frames,
    decode_items,
    decode_units,
    encode,
    encode_answers,
    encode_context,
    encode_frames,
    encode_item,
    encode_units,
)
from pipelines.inference.model_frames import ModelFrames
from pipelines.records import Expression, Record
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo
from pipelines.video.segments import DecodeUnit

INFO = VideoInfo(64, 48, 64, 48, "", "1", None, 2.5, None, "mov", "h264", "yuv420p", 1, 0, "file")


@dataclass(frozen=True)
class Ping:
    number: int


@dataclass(frozen=True)
class Pong:
    number: int


def the_record(name: str = "v") -> Record:
    return Record(
        "videos", "", name, 6, 4, ("00000", "00001"), (b"", b""), (), (Expression("1", "the dög"),), "/v.mp4", "file",
        6, 4, fps=25.0, timestamps=(0.0, 1 / 3),
    )  # fmt: skip


def a_unit(number: int, keys: np.ndarray | tuple[str, ...]) -> DecodeUnit:
    n = len(keys)
    return DecodeUnit(
        Video("/v \"1\".mp4"), INFO, number, 16, keys, np.arange(n) / 3, np.arange(n) + 4,
        ((0, n, 0), (1, n, 1)), index_keys=True, seek=True, note="the file ends early", shared=1,
    )  # fmt: skip


def test_units_of_any_kind_travel_together() -> None:
    units = [a_unit(0, np.array([3, 5, 9])), a_unit(1, ("a.png", "ü.png")), a_unit(2, np.array([7]))]
    message = encode_units([(unit, {"unit": unit.number}) for unit in units], {"shard": "s"})
    header, payload = decode(message, 0, UnitsHeader)
    assert header is not None
    assert msgspec.json.decode(header.context) == {"shard": "s"}
    arrived = list(decode_units(header, payload))
    assert [msgspec.json.decode(context) for _, context in arrived] == [{"unit": 0}, {"unit": 1}, {"unit": 2}]
    for (one, _), unit in zip(arrived, units, strict=True):
        for name in ("keys", "times", "indices"):
            assert np.array_equal(getattr(one, name), getattr(unit, name))
        for name in ("video", "info", "number", "first_window", "windows", "index_keys", "seek", "note", "shared"):
            assert getattr(one, name) == getattr(unit, name)


def test_a_shard_without_units_is_news_alone() -> None:
    header, payload = decode(encode_units([], ["news"]), 0, UnitsHeader)
    assert header is not None
    assert list(decode_units(header, payload)) == []
    assert msgspec.json.decode(header.context) == ["news"]


def test_the_frames_of_one_video_are_sent_and_read_without_a_copy() -> None:
    pixels = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    frames = ModelFrames(the_record(), (0, 1), pixels)
    header, payload = decode(encode_frames("v 7", [frames], context="x"), 0, FramesHeader)
    assert header is not None
    assert (header.unit, header.failures, msgspec.json.decode(header.context)) == ("v 7", (), "x")
    (arrived,) = decode_frames(header, payload)
    assert (arrived.record, arrived.numbers) == (frames.record, frames.numbers)
    assert np.array_equal(arrived.frames, pixels)
    assert np.shares_memory(arrived.frames, pixels)


def test_the_frames_of_several_videos_and_what_failed_of_them() -> None:
    rng = np.random.default_rng(0)
    shapes = [(2, 4, 6, 3), (0, 4, 6, 3), (1, 8, 2, 3)]
    frames = [
        ModelFrames(the_record(str(i)), tuple(range(shape[0])), rng.integers(0, 256, shape, dtype=np.uint8))
        for i, shape in enumerate(shapes)
    ]
    failure = Failure("w", "decode", "ü is no image")
    header, payload = decode(encode_frames("u", frames, [failure]), 0, FramesHeader)
    assert header is not None
    assert header.failures == (failure,)
    for arrived, sent in zip(decode_frames(header, payload), frames, strict=True):
        assert (arrived.record, arrived.numbers) == (sent.record, sent.numbers)
        assert np.array_equal(arrived.frames, sent.frames)


@pytest.mark.parametrize("count", [0, 1])
def test_a_unit_without_frames(count: int) -> None:
    frames = [ModelFrames(replace(the_record(), expressions=()), (), np.empty((0, 4, 6, 3), np.uint8))] * count
    header, payload = decode(encode_frames("u", frames), 0, FramesHeader)
    assert header is not None
    assert [one.frames.shape for one in decode_frames(header, payload)] == [(0, 4, 6, 3)] * count


def test_answers() -> None:
    masks = Masks((2, 2), (Compressed.of(np.array([[[48]]], dtype=np.uint8)),))
    answer = Answer(0, (0,), masks, ((0.5,),), (((0.0, 0.0, 1.0, 1.0),),), coarse=masks, note="ü", merged=masks.parts)
    lost = Failure("w", "predict", "x")
    sent = AnswersHeader(
        "u", (lost,), (the_record(), the_record("w")), {1: [lost]}, "f", 0, 0.25, 1.5, encode_context(1)
    )
    header, payload = decode(encode_answers(sent, [[answer, answer], []]), 0, AnswersHeader)
    assert header == sent
    assert sent.frames == 4
    assert decode_answers(payload) == [[answer, answer], []]


def test_messages_join_into_one_table_and_part_again() -> None:
    joined = pa.concat_tables([encode(Ping(1)), encode(Pong(2), b"pixels")])
    parted = [decode(joined, row, Ping, Pong) for row in (0, 1)]
    assert [(header, bytes(payload)) for header, payload in parted] == [(Ping(1), b""), (Pong(2), b"pixels")]


def test_a_message_of_another_kind_has_no_header() -> None:
    assert decode(encode(Pong(2)), 0, Ping)[0] is None


def test_items() -> None:
    batch = pa.Table.from_pylist([encode_item(Ping(1)), encode_item(Ping(2))])
    assert list(decode_items(batch, Ping)) == [Ping(1), Ping(2)]
