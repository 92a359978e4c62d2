from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from annotate_data import moving, write_video
from pipelines.annotate.settings import Settings
from pipelines.records import Expression
from pipelines.serve.opened_video import open_video, save_window, saved_windows
from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import Limits
from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import Video

CUT = Settings(window=8, overlap=2)


@pytest.fixture(scope="module")
def decoder() -> Iterator[VideoDecoder]:
    with VideoDecoder(60) as one:
        yield one


@pytest.fixture
def video(tmp_path: Path) -> Video:
    """20 frames of 56x40, 10 a second."""
    return Video(str(write_video(tmp_path / "secret.mp4", moving(1, 20), codec="libx264")))


def test_facts_are_of_the_frames_that_are_answered(decoder: VideoDecoder, video: Video) -> None:
    opened = open_video(decoder, video, "cat.mp4", CUT, Limits())
    assert opened.facts == {"width": 56, "height": 40, "frames": 20, "fps": 10.0, "seconds": 2.0, "windows": 3}
    assert opened.times == [t / 10 for t in range(20)]
    sampled = open_video(decoder, video, "cat.mp4", Settings(fps=5, window=8, overlap=2), Limits())
    assert (sampled.facts["frames"], sampled.times[:3]) == (10, [0.0, 0.2, 0.4])


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(seconds=1.9), "The video lasts 2 s, the limit is 1.9 s."),
        (Limits(frames=19), "20 frames of the video would be answered, the limit is 19."),
        (Limits(pixels=56 * 40 - 1), "The frames have 56 x 40 = 2240 pixels, the limit is 2239."),
    ],
)
def test_what_is_too_large_is_refused(decoder: VideoDecoder, video: Video, limits: Limits, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        open_video(decoder, video, "cat.mp4", CUT, limits)
    assert refused.value.status_code == 413
    assert said in refused.value.sentence


def test_a_file_that_is_no_video_is_refused_without_its_path(decoder: VideoDecoder, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"no video at all")
    with pytest.raises(Refusal) as refused:
        open_video(decoder, Video(str(tmp_path / "upload")), "cat.mp4", CUT, Limits())
    assert refused.value.status_code == 422
    assert str(tmp_path) not in refused.value.sentence


def test_records_name_neither_the_file_nor_its_folder(decoder: VideoDecoder, video: Video) -> None:
    opened = open_video(decoder, video, "cat.mp4", CUT, Limits())
    window, *_ = decoder.windows(opened.unit)
    frames = opened.model_frames(window, (Expression("0", "a dog"),))
    assert (frames.record.video, frames.record.source) == ("video", "cat.mp4")
    assert frames.one_of_many


def test_saved_windows_are_those_that_were_decoded(decoder: VideoDecoder, video: Video, tmp_path: Path) -> None:
    opened = open_video(decoder, video, "cat.mp4", CUT, Limits())
    folder = tmp_path / "windows"
    folder.mkdir()
    decoded = list(decoder.windows(opened.unit, (20, 28)))
    sizes = [save_window(one, folder) for one in decoded]
    assert sizes == [one.frames.nbytes for one in decoded]
    for one, other in zip(decoded, saved_windows(folder), strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert (one.number, one.shot, one.names, one.note) == (other.number, other.shot, other.names, other.note)
