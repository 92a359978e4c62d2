"""Times in, windows and segments out."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.video.listing import Video
from pipelines.video.probe import Timeline, VideoInfo
from pipelines.video.segments import DecodeUnit, segments

VIDEO = Video("/v.mp4")
INFO = VideoInfo(8, 6, 8, 6, "", "1", 25.0, None, None, "mov", "h264", "yuv420p", 1, 0, "f")


def _timeline(times: list[float], cuts: tuple[int, ...] = (), index_keys: bool = False, note: str = "") -> Timeline:
    return Timeline(INFO, np.arange(100, 100 + len(times)), np.array(times), index_keys, cuts, note)


def _every(seconds: float, count: int) -> list[float]:
    return [place * seconds for place in range(count)]


def _windows(parts: tuple[DecodeUnit, ...]) -> list[tuple[int, ...]]:
    return [tuple(part.indices[first:past].tolist()) for part in parts for first, past, _ in part.windows]


@pytest.mark.parametrize(
    ("count", "length", "overlap", "expected"),
    [
        (10, 4, 0, [(0, 4), (4, 8), (8, 10)]),
        (10, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (9, 4, 1, [(0, 4), (3, 7), (6, 9)]),
        (4, 4, 3, [(0, 4)]),
        (1, 36, 4, [(0, 1)]),
        (3, 1, 0, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_windows_overlap_and_cover_every_frame(
    count: int, length: int, overlap: int, expected: list[tuple[int, int]]
) -> None:
    (one,) = segments(VIDEO, _timeline(_every(0.04, count)), length=length, overlap=overlap)
    assert _windows((one,)) == [tuple(range(first, past)) for first, past in expected]
    assert list(one.keys) == list(range(100, 100 + count))


def test_segments_hold_the_windows_of_the_whole_and_the_overlap_between_them() -> None:
    timeline = _timeline(_every(0.04, 100), note="odd")
    whole = segments(VIDEO, timeline, length=10, overlap=3)
    parts = segments(VIDEO, timeline, length=10, overlap=3, windows_each=4)
    assert _windows(parts) == _windows(whole)
    assert [part.first_window for part in parts] == [0, 4, 8, 12]
    assert [part.number for part in parts] == [0, 1, 2, 3]
    assert [part.seek for part in parts] == [False, True, True, True]
    assert [part.note for part in parts] == ["", "", "", "odd"]
    assert parts[1].indices[0] == parts[0].indices[-1] - 2


def test_no_window_crosses_a_cut_and_shots_are_numbered() -> None:
    (one,) = segments(VIDEO, _timeline(_every(0.04, 20), cuts=(5, 6, 15)), length=6, overlap=2)
    assert [(one.indices[first], one.indices[past - 1], shot) for first, past, shot in one.windows] == [
        (0, 4, 0),
        (5, 5, 1),
        (6, 11, 2),
        (10, 14, 2),
        (15, 19, 3),
    ]


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [
        (_every(1 / 30, 30), 30, list(range(30))),
        (_every(1 / 30, 30), 10, list(range(0, 30, 3))),
        (_every(1 / 30, 30), 60, list(range(30))),
        ([round(place / 30, 3) for place in range(30)], 15, list(range(0, 30, 2))),  # as Matroska rounds them
        ([round(place / 24, 3) for place in range(24)], 24, list(range(24))),
        (_every(1 / 25, 25), 6, [0, 5, 9, 13, 17, 21]),
        ([0, 0.04, 0.08, 0.2, 0.24, 0.4, 0.44, 0.48, 0.92, 1, 1.04, 1.08], 5, [0, 3, 5, 8, 9]),
        ([0.04, 0.08, 0.5], 2, [0, 2]),
    ],
)
def test_sampling_takes_the_first_frame_of_every_step_of_time(
    times: list[float], fps: float, expected: list[int]
) -> None:
    (one,) = segments(VIDEO, _timeline(times), fps=fps, length=100)
    assert list(one.indices) == expected
    assert one.times.tolist() == [times[place] for place in expected]


def test_a_part_of_the_time_has_the_sampled_frames_of_the_whole() -> None:
    timeline = _timeline(_every(1 / 25, 200))
    (whole,) = segments(VIDEO, timeline, fps=6, length=100)
    (part,) = segments(VIDEO, timeline, fps=6, length=100, start=2.0, stop=4.0)
    assert part.indices.tolist() == [place for place in whole.indices.tolist() if 2 <= place / 25 < 4]
    assert part.seek


def test_a_video_that_only_reads_from_its_start_is_one_segment() -> None:
    assert len(segments(VIDEO, _timeline(_every(0.04, 100), index_keys=True), windows_each=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "do not fit together"),
        ({"length": 4, "overlap": 4}, "do not fit together"),
        ({"windows_each": 0}, "do not fit together"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"start": 99.0}, "no frame from 99"),
    ],
)
def test_arguments_that_make_no_window_say_so(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segments(VIDEO, _timeline(_every(0.04, 10)), **arguments)  # pyright: ignore[reportArgumentType]


def test_image_names_are_keys_too() -> None:
    timeline = replace(_timeline([0.0, 1 / 24]), keys=("a.png", "b.png"))
    assert segments(VIDEO, timeline)[0].keys == ("a.png", "b.png")
