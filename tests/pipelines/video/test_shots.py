"""Cuts, and windows that end at them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import Video
from pipelines.video.segments import segments

CUTS = [30, 55]


def _scenes() -> list[np.ndarray]:
    """Three scenes of different colours, each with something that moves fast."""
    colours = [(200, 40, 40), (40, 60, 200), (60, 220, 90)]
    frames = []
    for place in range(90):
        scene = sum(place >= cut for cut in CUTS)
        image = np.full((72, 96, 3), colours[scene], np.uint8)
        left = abs((place * 5) % 130 - 65)  # there and back
        image[20:50, left : left + 30] = 255 - image[0, 0]
        frames.append(image)
    return frames


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_no_window_crosses_a_cut_on_any_worker(make_video: Callable[..., Path], name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    video = Video(str(make_video(name, _scenes(), codec=codec)))
    with VideoDecoder() as one, VideoDecoder() as other:
        timeline = one.timeline(video, shots=True)
        assert list(timeline.cuts) == CUTS
        again = other.timeline(video, shots=True)
        assert again.cuts == timeline.cuts
        assert np.array_equal(again.times, timeline.times)
        assert list(one.timeline(video).keys) == list(timeline.keys)
        (whole,) = segments(video, timeline, length=16, overlap=4)
        for window in one.windows(whole):
            edges = [0, *CUTS, 90]
            assert edges[window.shot] <= window.indices[0] <= window.indices[-1] < edges[window.shot + 1]
        parts = segments(video, timeline, length=16, overlap=4, windows_each=2)
        numbers = [window.number for part in parts for window in other.windows(part)]
        assert numbers == list(range(len(whole.windows)))


def test_motion_alone_is_no_cut(data_kit: Path) -> None:
    with VideoDecoder() as decoder:
        assert decoder.timeline(Video(str(data_kit / "videos/samtrack__blackswan.mp4")), shots=True).cuts == ()


def test_sampled_frames_are_parted_at_the_cut(make_video: Callable[..., Path]) -> None:
    video = Video(str(make_video("a.mp4", _scenes())))
    with VideoDecoder() as decoder:
        (part,) = segments(video, decoder.timeline(video, shots=True), fps=5, length=100)
    assert [[part.indices[place] for place in range(*window[:2])] for window in part.windows] == [
        list(range(0, 30, 5)),
        list(range(30, 55, 5)),
        list(range(55, 90, 5)),
    ]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
@pytest.mark.parametrize("fps", [None, 10])
def test_cuts_that_are_found_on_the_way_give_the_same_windows(
    make_video: Callable[..., Path], name: str, fps: float | None
) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    video = Video(str(make_video(name, _scenes(), codec=codec)))
    with VideoDecoder() as decoder:
        (known,) = segments(video, decoder.timeline(video, shots=True), fps=fps, length=16, overlap=4)
        (unknown,) = segments(video, decoder.timeline(video), fps=fps, length=16, overlap=4)
        assert known.windows != unknown.windows
        for expected, found in zip(decoder.windows(known), list(decoder.windows(unknown, None, (16, 4))), strict=True):
            assert (found.number, found.shot, found.note) == (expected.number, expected.shot, expected.note)
            assert np.array_equal(found.indices, expected.indices)
            assert np.array_equal(found.frames, expected.frames)
