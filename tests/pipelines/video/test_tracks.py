"""Which track of a file is read."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from odd_clips import picture, write_as, write_tracks
from pipelines.errors import BadItem
from pipelines.sources.a2d_clip import decoded_clip
from pipelines.sources.video_files import decode_video
from pipelines.video.decoder import VideoDecoder, windows
from pipelines.video.listing import Video
from pipelines.video.tracks import choose_track

SMALL = [picture(64, 48, seed) for seed in range(5)]
LARGE = [picture(128, 96, seed) for seed in range(5)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_moving_picture_goes_before_a_still_however_large(tmp_path: Path, name: str) -> None:
    path = write_tracks(tmp_path / name, [LARGE[:1], SMALL])
    (window,) = windows(Video(str(path)))
    assert window.frames.shape == (5, 48, 64, 3)
    assert not window.remark
    decoded = decode_video(path.read_bytes())
    assert (len(decoded.frames), decoded.width, decoded.other_tracks) == (5, 64, "")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_of_several_moving_pictures_the_largest_is_read_and_that_is_said(tmp_path: Path, name: str) -> None:
    path = write_tracks(tmp_path / name, [SMALL, LARGE])
    said = "the file has several video tracks: track 1 of 128 x 96 is read, not track 0 of 64 x 48"
    for window in windows(Video(str(path)), length=3, overlap=0):
        assert window.frames.shape[1:] == (96, 128, 3)
        assert window.remark == ("" if window.number else said)
    decoded = decode_video(path.read_bytes())
    assert (decoded.width, decoded.other_tracks) == (128, said)


def test_a_still_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    (window,) = windows(Video(str(write_tracks(tmp_path / "a.mp4", [SMALL[:1], LARGE[:1]]))))
    assert window.frames.shape == (1, 96, 128, 3)


def test_a_thumbnail_before_the_video_is_no_video(case_kit: Path) -> None:
    frames = sum(len(window.frames) for window in windows(Video(str(case_kit / "thumb_first.mp4")), overlap=0))
    assert frames == 24
    assert len(decode_video((case_kit / "thumb_first.mp4").read_bytes()).frames) == 24


class Counting(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size) or b""
        self.count += len(data)
        return data


@pytest.mark.parametrize(("name", "cover"), [("a.mp4", LARGE[0]), ("a.mkv", LARGE[0]), ("b.mkv", None)])
def test_a_cover_or_a_still_is_told_from_the_video_without_reading_all_of_it(
    tmp_path: Path, name: str, cover: np.ndarray | None
) -> None:
    noise = [np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8) for seed in range(700)]
    stills = [] if cover is not None else [LARGE[:1]]
    path = write_tracks(tmp_path / name, [*stills, noise], cover=cover)
    with Counting(str(path)) as file, av.open(file, "r") as container:
        found = choose_track(container)
        assert found is not None
        assert container.streams[found.index].width == 64  # pyright: ignore[reportAttributeAccessIssue]
        assert file.count < path.stat().st_size / 2


def with_unknown_codec(path: Path, known: bytes) -> Path:
    """The file with another name of its codec in the header."""
    data = path.read_bytes()
    assert known in data
    path.write_bytes(data.replace(known, known[:2] + b"Z" * len(known[2:])))
    return path


@pytest.mark.parametrize(
    ("name", "format", "codec", "known"),
    [
        ("a.mp4", "mp4", "libx264", b"avc1"),
        ("a.mkv", "matroska", "libx264", b"V_MPEG4/ISO/AVC"),
        ("a.avi", "avi", "mpeg4", b"FMP4"),
    ],
)
def test_a_file_of_an_unknown_codec_is_said_to_hold_none_that_can_be_decoded(
    tmp_path: Path, name: str, format: str, codec: str, known: bytes
) -> None:
    path = with_unknown_codec(write_as(tmp_path / name, SMALL, format, codec), known)
    said = "holds no picture that can be decoded: FFmpeg knows no decoder for the codec of its video track 0"
    with VideoDecoder() as decoder:
        for read in (decoder.probe, decoder.timeline):
            with pytest.raises(BadItem, match=said):
                read(Video(str(path)))
    with pytest.raises(ValueError, match=said):
        decode_video(path.read_bytes())
    with pytest.raises(BadItem, match=rf"v: {path}: the file {said}"):
        decoded_clip("v", str(path), path.read_bytes(), 95)


def test_a_file_of_subtitles_alone_holds_no_moving_picture(tmp_path: Path) -> None:
    text = tmp_path / "a.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    path = tmp_path / "a.mkv"
    with av.open(str(text)) as source, av.open(str(path), "w") as made:
        track = made.add_stream_from_template(source.streams.subtitles[0])
        for packet in source.demux(source.streams.subtitles[0]):
            if packet.dts is not None:
                packet.stream = track
                made.mux(packet)
    with pytest.raises(BadItem, match="the file holds no moving picture"):
        list(windows(Video(str(path))))
    with pytest.raises(ValueError, match="the file holds no moving picture"):
        decode_video(path.read_bytes())
