from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.errors import BadItem
from pipelines.video.decoder import VideoDecoder
from pipelines.video.frames_by_name import FramesByName, video_of_prediction
from pipelines.video.listing import Video

Writer = Callable[..., Path]


def steps(count: int) -> list[np.ndarray]:
    """Frames that tell their place by their brightness."""
    return [np.full((48, 64, 3), 4 * place, dtype=np.uint8) for place in range(count)]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_frames_are_read_by_name_call_after_call(name: str, codec: str, make_video: Writer) -> None:
    path = make_video(name, steps(40), codec=codec)
    with VideoDecoder() as decoder, FramesByName(decoder, Video(str(path))) as frames:
        for wanted in ([0, 3, 14], [15, 27], [39]):
            found = list(frames.read([f"{place:05d}" for place in wanted]))
            assert [again.name for again in found] == [f"{place:05d}" for place in wanted]
            np.testing.assert_allclose([again.image.mean() for again in found], [4 * at for at in wanted], atol=3)
            np.testing.assert_allclose([again.time for again in found], np.array(wanted) / 25, atol=1e-6)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_a_frame_is_sought_by_its_time(name: str, codec: str, make_video: Writer) -> None:
    video = Video(str(make_video(name, steps(40), codec=codec)))
    with VideoDecoder() as decoder:
        times = decoder.timeline(video).times
        for wanted in ([39], [0, 7], [14, 15, 27]):
            with FramesByName(decoder, video) as frames:
                names = [f"{place:05d}" for place in wanted]
                found = list(frames.read(names, times[wanted].tolist()))
                assert ("_timeline" in vars(frames)) == (name == "a.avi"), "the file is not listed"
            assert [again.name for again in found] == names
            np.testing.assert_allclose([again.image.mean() for again in found], [4 * at for at in wanted], atol=3)


def test_frames_of_other_times_are_found_by_their_names(make_video: Writer) -> None:
    video = Video(str(make_video("a.mp4", steps(40))))
    with VideoDecoder() as decoder, FramesByName(decoder, video) as frames:
        (found,) = frames.read(["00012"], [12 / 25 + 0.013])
    assert (found.name, round(found.image.mean() / 4)) == ("00012", 12)


def test_images_are_read_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for place, image in enumerate(steps(12)):
        cv2.imwrite(str(tmp_path / f"f/frame_{place}.png"), image)
    video = video_of_prediction(str(tmp_path / "f"))
    assert video.images
    with VideoDecoder() as decoder, FramesByName(decoder, video) as frames:
        found = list(frames.read(["frame_2", "frame_10"]))
    assert [(again.name, int(again.image.mean())) for again in found] == [("frame_2", 8), ("frame_10", 40)]


def test_images_of_names_that_are_there_twice_are_read_by_number(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for name, image in zip(("a.jpg", "a.png", "b.png"), steps(3), strict=True):
        cv2.imwrite(str(tmp_path / "f" / name), image)
    with VideoDecoder() as decoder, FramesByName(decoder, video_of_prediction(str(tmp_path / "f"))) as frames:
        found = list(frames.read(["00001", "00002"]))
    assert [(again.name, int(again.image.mean())) for again in found] == [("00001", 4), ("00002", 8)]


@pytest.mark.parametrize("name", ["00012", "twelve"])
def test_a_frame_that_is_no_more_is_named(name: str, make_video: Writer) -> None:
    video = Video(str(make_video("a.mp4", steps(12))))
    missing = pytest.raises(BadItem, match=f"it has no frame {name}")
    with VideoDecoder() as decoder, FramesByName(decoder, video) as frames, missing:
        list(frames.read(["00003", name]))


def test_a_decoder_serves_the_next_video_whatever_was_left_unread(make_video: Writer) -> None:
    video = Video(str(make_video("a.avi", steps(40), codec="mpeg4")))
    with VideoDecoder() as decoder:
        for place in (3, 30):
            with FramesByName(decoder, video) as frames:
                (found,) = frames.read([f"{place:05d}"])
            assert abs(found.image.mean() - 4 * place) < 3
