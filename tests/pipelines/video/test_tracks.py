"""Which track of a file is read."""

from pathlib import Path

import pytest

from odd_clips import picture, write_tracks
from pipelines.sources.video_files import decode_video
from pipelines.video.decoder import windows
from pipelines.video.listing import Video

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
