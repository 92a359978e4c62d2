"""Frames of files read in this process: what the decoder's process does on request (see `test_decoder.py`)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BadItem
from pipelines.video.frame_reader import UNTIMED_FPS, Damage, Frame, file_frames, file_timeline
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline

Writer = Callable[..., Path]


def frames_of(t: int = 36) -> list[np.ndarray]:
    """Grey that grows with the frame."""
    return [np.full((48, 64, 3), 4 * place, np.uint8) for place in range(t)]


def two_scenes(t: int = 60, cut: int = 30) -> list[np.ndarray]:
    """Red, then blue, each with something that moves fast."""
    frames = []
    for place in range(t):
        image = np.full((72, 96, 3), (200, 40, 40) if place < cut else (40, 60, 200), np.uint8)
        left = abs((place * 5) % 130 - 65)  # there and back
        image[20:50, left : left + 30] = 255 - image[0, 0]
        frames.append(image)
    return frames


def read(video: Video, timeline: Timeline, places: Sequence[int], seek: bool = True) -> list[Frame | Damage]:
    keys = np.asarray(timeline.keys)[list(places)]
    return list(file_frames(video, timeline.info, keys, timeline.index_keys, seek))


def middle_of(frame: Frame | Damage) -> int:
    assert isinstance(frame, Frame)
    return int(frame.image[24, 32, 0])


def cut_short(path: Path, share: float) -> Video:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return Video(str(path))


@pytest.mark.parametrize("seek", [True, False])
def test_the_frames_that_are_asked_for_come_wherever_reading_begins(make_video: Writer, seek: bool) -> None:
    video = Video(str(make_video("a.mp4", frames_of())))
    timeline = file_timeline(video, shots=False)
    assert not timeline.index_keys
    np.testing.assert_allclose(timeline.times, np.arange(36) / 25, atol=1e-6)
    found = read(video, timeline, (3, 13, 19), seek)
    np.testing.assert_allclose([middle_of(frame) for frame in found], [12, 52, 76], atol=4)
    assert [frame.key for frame in found if isinstance(frame, Frame)] == np.asarray(timeline.keys)[[3, 13, 19]].tolist()


def test_a_container_whose_packets_tell_no_times_is_counted(make_video: Writer) -> None:
    video = Video(str(make_video("a.avi", frames_of(), codec="mpeg4")))
    timeline = file_timeline(video, shots=False)
    assert timeline.index_keys
    np.testing.assert_allclose(timeline.times, np.arange(len(timeline.times)) / 25, atol=1e-6)
    np.testing.assert_allclose([middle_of(frame) for frame in read(video, timeline, (4, 10))], [16, 40], atol=5)


def test_untimed_frames_get_even_times(make_video: Writer) -> None:
    path = make_video("a.mjpeg", frames_of(6), codec="mjpeg", pixels="yuvj420p")
    timeline = file_timeline(Video(str(path)), shots=False)
    assert len(timeline.times) == 6
    steps = np.diff(timeline.times)
    np.testing.assert_allclose(steps, steps[0])
    assert steps[0] in (pytest.approx(1 / UNTIMED_FPS), pytest.approx(1 / 25))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_cuts_are_found_where_the_picture_changes(make_video: Writer, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    video = Video(str(make_video(name, two_scenes(), codec=codec)))
    assert file_timeline(video, shots=True).cuts == (30,)
    assert file_timeline(video, shots=False).cuts == ()


def test_of_a_file_that_was_cut_short_the_beginning_comes(make_video: Writer) -> None:
    whole = Video(str(make_video("a.mkv", frames_of())))
    timeline = file_timeline(whole, shots=False)
    video = cut_short(Path(whole.path), 0.6)
    assert 0 < len(file_timeline(video, shots=False).times) < 36
    found = [frame for frame in read(video, timeline, range(36)) if isinstance(frame, Frame)]
    assert 0 < len(found) < 36
    np.testing.assert_allclose([middle_of(frame) for frame in found], 4 * np.arange(len(found)), atol=4)


def test_what_is_damaged_is_told_and_left_out_up_to_the_next_key_frame(make_video: Writer) -> None:
    video = Video(str(make_video("a.avi", two_scenes(), codec="mpeg4")))
    timeline = file_timeline(video, shots=False)
    data = bytearray(Path(video.path).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    Path(video.path).write_bytes(data)
    found = read(video, timeline, range(60))
    frames = [frame for frame in found if isinstance(frame, Frame)]
    assert [one for one in found if isinstance(one, Damage) or one.damage]
    assert 12 < len(frames) < 60
    assert "damaged" in file_timeline(video, shots=False).note


def test_every_frame_that_is_decoded_is_told(make_video: Writer) -> None:
    video = Video(str(make_video("a.mp4", frames_of())))
    told: list[None] = []
    timeline = file_timeline(video, shots=True, heartbeat=lambda: told.append(None))
    assert len(told) == 37 + 36  # packets, the last of which is empty, and frames
    told.clear()
    keys = np.asarray(timeline.keys)[[20]]
    assert len(list(file_frames(video, timeline.info, keys, False, False, heartbeat=lambda: told.append(None)))) == 1
    assert len(told) == 21


def test_a_file_without_a_whole_frame_is_said(make_video: Writer) -> None:
    video = cut_short(make_video("a.avi", frames_of(), codec="mpeg4"), 0.02)
    with pytest.raises(BadItem, match=r"a\.avi"):
        file_timeline(video, shots=False)
