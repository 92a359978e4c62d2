"""Frames whose size changes in mid-stream."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odd_clips import picture, write_sizes
from pipelines.sources.video_files import decode_video
from pipelines.video.decoder import VideoDecoder, Window, windows
from pipelines.video.frames_by_name import FramesByName
from pipelines.video.letterbox import fitted
from pipelines.video.listing import Video
from pipelines.video.segments import segments

WIDE, TALL = picture(64, 48), picture(24, 96, 1)
FRAMES = [WIDE] * 5 + [TALL] * 4 + [WIDE] * 3
SAID = (
    "frames of 24 x 96 pixels follow frames of 64 x 48: they are a shot of their own, shown as 12 x 48 at x 26, y 0 "
    "between black bars"
)


@pytest.fixture(params=["file", "images"])
def changing(request: pytest.FixtureRequest, tmp_path: Path) -> Video:
    """Five wide frames, four tall ones, three wide ones."""
    if request.param == "file":
        return Video(str(write_sizes(tmp_path / "a.mkv", FRAMES)))
    for place, image in enumerate(FRAMES):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
    return Video(str(tmp_path), images=True)


def _check(found: list[Window]) -> None:
    seen: dict[int, np.ndarray] = {}
    shots: dict[int, set[int]] = {}
    for window in found:
        tall = {index for index in window.indices.tolist() if 5 <= index < 9}
        assert len(tall) in (0, len(window.frames)), "a window of two sizes"
        assert window.remark == (SAID if tall else "")
        assert not window.note
        for index, frame in zip(window.indices.tolist(), window.frames, strict=True):
            seen[index] = frame
            shots.setdefault(index, set()).add(window.shot)
    assert sorted(seen) == list(range(12))
    assert [shots[index] for index in sorted(shots)] == [{0}] * 5 + [{1}] * 4 + [{2}] * 3
    for index, frame in seen.items():
        if not 5 <= index < 9:
            assert abs(frame.astype(int) - WIDE).max() < 20
            continue
        assert not frame[:, :26].any()
        assert not frame[:, 38:].any()
        inside = frame[:, 26:38].astype(int)
        expected = np.asarray(Image.fromarray(TALL).resize((12, 48), Image.Resampling.BILINEAR)).astype(int)
        assert abs(inside - expected).mean() < 8


@pytest.mark.parametrize(("length", "overlap"), [(36, 4), (4, 2), (3, 0), (1, 0)])
def test_a_new_size_is_a_new_shot_between_black_bars(changing: Video, length: int, overlap: int) -> None:
    _check(list(windows(changing, length=length, overlap=overlap)))


@pytest.mark.parametrize("each", [1, 2])
def test_whichever_worker_decodes_it_it_looks_the_same(changing: Video, each: int) -> None:
    with VideoDecoder() as decoder:
        parts = segments(changing, decoder.timeline(changing), length=3, overlap=0, windows_each=each)
        found = [window for part in parts for window in decoder.windows(part)]
    whole = list(windows(changing, length=3, overlap=0))
    assert [window.indices.tolist() for window in found] == [window.indices.tolist() for window in whole]
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(found, whole, strict=True))
    assert [window.remark for window in found] == [window.remark for window in whole]


@pytest.mark.parametrize("overlap", [1, 2, 3])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_frames_that_two_workers_share_are_added_once(changing: Video, overlap: int, each: int) -> None:
    """A track takes those frames of a window that the window before did not have."""
    with VideoDecoder() as decoder:
        parts = segments(changing, decoder.timeline(changing), length=4, overlap=overlap, windows_each=each)
        found = [window.indices.tolist() for part in parts for window in decoder.windows(part)]
    added = [index for before, window in pairwise([[], *found]) for index in window if index not in before]
    assert added == list(range(12))


def test_detected_cuts_count_the_change_once(tmp_path: Path) -> None:
    video = Video(str(write_sizes(tmp_path / "a.mkv", FRAMES)))
    _check(list(windows(video, length=4, overlap=2, shots=True)))
    with VideoDecoder() as decoder:
        (whole,) = segments(video, decoder.timeline(video), length=4, overlap=2)
        _check(list(decoder.windows(whole, shots=(4, 2))))


def test_a_smaller_frame_for_the_model_has_the_bars_where_the_large_one_has_them(changing: Video) -> None:
    with VideoDecoder() as decoder:
        (whole,) = segments(changing, decoder.timeline(changing))
        _, tall, _ = decoder.windows(whole, size=(24, 32))
    assert tall.frames.shape == (4, 24, 32, 3)
    assert not tall.frames[:, :, :13].any()
    assert not tall.frames[:, :, 19:].any()
    assert tall.frames[:, :, 14:18].any(axis=-1).all()


def test_the_frames_are_found_again_by_name(changing: Video) -> None:
    names = [str(place) if changing.images else f"{place:05d}" for place in (4, 5, 9)]
    with VideoDecoder() as decoder, FramesByName(decoder, changing) as frames:
        found = list(frames.read(names))
    assert [one.name for one in found] == names
    assert [bool(one.image[:, :26].any()) for one in found] == [True, False, True]


def test_one_rule_for_any_shape() -> None:
    assert fitted((96, 24), (48, 64)) == (26, 0, 12, 48)
    assert fitted((48, 64), (48, 64)) == (0, 0, 64, 48)
    assert fitted((10, 1000), (480, 640)) == (0, 237, 640, 6)
    assert fitted((1, 9000), (48, 64)) == (0, 23, 64, 1)


def test_ones_own_masks_have_one_size_so_the_frame_is_named(tmp_path: Path) -> None:
    data = write_sizes(tmp_path / "a.mkv", FRAMES).read_bytes()
    with pytest.raises(ValueError, match="frame 00005 is 24 x 96 pixels, those before it 64 x 48"):
        decode_video(data)


def test_the_case_that_was_squeezed(case_kit: Path) -> None:
    found = list(windows(Video(str(case_kit / "size_change.mkv")), overlap=0))
    assert sum(len(window.frames) for window in found) == 24
    assert {window.frames.shape[1:3] for window in found} == {(120, 160)}
    assert len({window.shot for window in found}) == len([window for window in found if window.remark]) + 1 == 2
