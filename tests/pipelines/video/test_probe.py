"""What is said of a video before it is decoded."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import BadItem
from pipelines.video.listing import Video, list_videos
from pipelines.video.probe import probe_file, probe_packets

RNG = np.random.default_rng(0)


def _images(count: int) -> list[np.ndarray]:
    return list(RNG.integers(0, 256, (count, 24, 32, 3), dtype=np.uint8))


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read everything; anybody else needs the right to."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


def test_a_probe_says_size_rate_streams_and_rotation(data_kit: Path) -> None:
    info = probe_file(Video(str(data_kit / "videos/torchcodec__nasa_13013.mp4")))
    assert (info.width, info.height, info.video_streams, info.audio_streams) == (480, 270, 2, 2)
    assert info.fps == pytest.approx(30000 / 1001)
    assert (info.codec, info.pixels, info.frames) == ("h264", "yuv420p", 390)
    turned = probe_file(Video(str(data_kit / "videos/decord__video_90.mov")))
    assert (turned.width, turned.height, turned.orientation) == (320, 568, "tx")


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_tags_in_latin_1_are_no_damage(
    make_video: Callable[..., Path], latin_1: Callable[[Path], Path], name: str
) -> None:
    assert probe_file(Video(str(latin_1(make_video(name, _images(2)))))).width == 32


def test_what_the_file_does_not_say_is_none(data_kit: Path) -> None:
    info = probe_file(Video(str(data_kit / "videos/moviepy__no_duration.webm")))
    assert info.duration is None
    assert info.frames is None


def test_a_turned_video_of_wide_pixels_grows_in_height(make_video: Callable[..., Path]) -> None:
    path = make_video("a.mp4", _images(2), aspect=Fraction(2))
    data = path.read_bytes()
    head = data.index(b"tkhd") + 44
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data[:head] + matrix + data[head + len(matrix) :])
    info = probe_file(Video(str(path)))
    assert (info.width, info.height) == (24, 32)
    assert (info.shown_width, info.shown_height) == (24, 64)


def test_the_fingerprint_is_of_the_content_not_of_the_name(make_video: Callable[..., Path]) -> None:
    images = _images(3)
    one, same = (probe_file(Video(str(make_video(name, images)))).fingerprint for name in ("a.mp4", "b.mp4"))
    other = probe_file(Video(str(make_video("c.mp4", images[:2])))).fingerprint
    assert one == same != other


def test_packets_tell_times_in_the_order_of_display(make_video: Callable[..., Path]) -> None:
    stamps = [0, 40, 90, 200, 240, 1000, 1040, 1080]
    path = make_video("a.mkv", _images(8), stamps=stamps, options={"bf": "2"})
    info, found = probe_packets(Video(str(path)))
    assert info == probe_file(Video(str(path)))
    assert found is not None
    assert found.seconds.tolist() == pytest.approx([stamp / 1000 for stamp in stamps])
    assert not found.note


def test_packets_of_avi_are_not_trusted(data_kit: Path) -> None:
    info, found = probe_packets(Video(str(data_kit / "videos/mmaction2__test.avi")))
    assert (info.width > 0, found) == (True, None)


def test_a_file_without_permission_says_so(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video("a.mp4", _images(2))
    path.chmod(0)
    with _as_nobody(), pytest.raises(BadItem, match="permission denied") as caught:
        probe_file(Video(str(path)))
    assert caught.value.stage == "read"
    tmp_path.chmod(0)
    try:
        with _as_nobody():
            (problem,) = list_videos(str(tmp_path)).problems
    finally:
        tmp_path.chmod(0o700)
    assert "cannot be listed" in problem.reason
