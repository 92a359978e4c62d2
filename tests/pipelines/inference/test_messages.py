"""What travels between the workers arrives as it was sent."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.inference.messages import (
    FOUND,
    NEWS,
    SEGMENT,
    WINDOW,
    found_of,
    found_parcel,
    open_parcel,
    parcel,
    segment_of,
    segment_parcel,
    window_of,
    window_parcel,
)
from pipelines.predictions import Prediction, QueryTrack, prediction_of
from pipelines.records import Expression, Record
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo
from pipelines.video.segments import DecodeUnit

INFO = VideoInfo(64, 48, 64, 48, "", "1", None, 2.5, None, "mov", "h264", "yuv420p", 1, 0, "file")


@pytest.mark.parametrize("keys", [np.array([3, 5, 9]), ("a.png", "ü.png", "c.png")])
def test_a_segment(keys: np.ndarray | tuple[str, ...]) -> None:
    segment = DecodeUnit(
        Video("/v \"1\".mp4"), INFO, 2, 16, keys, np.array([0.1, 0.2, 1 / 3]), np.array([4, 5, 6]),
        ((0, 2, 0), (1, 3, 1)), counted=True, seek=True, note="the file ends early",
    )  # fmt: skip
    kind, about, data = open_parcel(segment_parcel(segment, {"batches": ["b"]}), 0)
    assert (kind, about["batches"]) == (SEGMENT, ["b"])
    found = segment_of(about, data)
    for name in ("keys", "times", "indices"):
        assert np.array_equal(getattr(found, name), getattr(segment, name))
    for name in ("video", "info", "number", "first_window", "windows", "counted", "seek", "note"):
        assert getattr(found, name) == getattr(segment, name)


def test_a_window() -> None:
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    record = Record(
        "videos", "", "v", 6, 4, ("00000", "00001"), (b"", b""), (), (Expression("1", "the dog"),), "/v.mp4", "file",
        6, 4, segment=7, fps=25.0, timestamps=(0.0, 0.04),
    )  # fmt: skip
    kind, about, data = open_parcel(window_parcel(record, frames, {"damage": "x"}), 0)
    asked = window_of(about, data)
    assert (kind, about["damage"], asked.record, asked.numbers) == (WINDOW, "x", record, (0, 1))
    assert np.array_equal(asked.frames, frames)


def test_what_was_found() -> None:
    query = QueryTrack(("4",), ((0.0, 0.0, 1.0, 1.0),), (0.5,))
    row = Prediction("videos", "", "v", "1", "a dog", 2, 2, ("00000",), (query, query), 0.5, "f", "/v.mp4", "file")
    kind, about, data = open_parcel(found_parcel([row], {"batches": []}), 0)
    assert (kind, about) == (FOUND, {"batches": []})
    assert [prediction_of(one) for one in found_of(data).to_pylist()] == [row]


def test_parcels_join_into_one_table_and_part_again() -> None:
    joined = pa.concat_tables([parcel(NEWS, {"n": 1}), parcel(WINDOW, {"n": 2}, b"pixels")])
    assert [(kind, about["n"], bytes(data)) for kind, about, data in (open_parcel(joined, row) for row in (0, 1))] == [
        (NEWS, 1, b""),
        (WINDOW, 2, b"pixels"),
    ]
