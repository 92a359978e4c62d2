"""When images of a folder were taken, and what `fps` then means."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.video.decoder import VideoDecoder, windows
from pipelines.video.image_times import rate_of_name
from pipelines.video.listing import Video
from pipelines.video.segments import segments

UNTIMED = "nothing tells when these images were taken: all are used, not 2 a second (give --image-fps)"


def _folder(root: Path, count: int = 10, taken: list[str] | None = None) -> Video:
    root.mkdir()
    for place in range(count):
        exif = Image.Exif()
        if taken:
            whole, _, part = taken[place].partition(".")
            exif.get_ifd(0x8769).update({0x9003: whole, 0x9291: part or "0"})
        Image.new("RGB", (16, 12)).save(root / f"{place}.jpg", exif=exif)
    return Video(str(root), images=True)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("cat_5fps", 5), ("5 FPS", 5), ("clip-29.97fps_left", 29.97), ("fps=2.5", 2.5), ("fps_10", 10),
        ("v2_12fps", 12),
        ("fpsgame", None), ("fps_test", None), ("cat", None), ("0fps", None), ("5fpsx", None), ("20231105", None),
    ],
)  # fmt: skip
def test_a_rate_may_stand_in_the_name_of_the_folder(name: str, rate: float | None) -> None:
    assert rate_of_name(name) == rate


def test_without_times_every_image_is_taken_and_that_is_said(tmp_path: Path) -> None:
    video = _folder(tmp_path / "cat")
    (window,) = windows(video, fps=2)
    assert len(window.frames) == 10
    assert window.remark == UNTIMED
    (every,) = windows(video)
    assert not every.remark


def test_a_rate_that_is_given_or_named_is_kept_to(tmp_path: Path) -> None:
    for video, rate in ((_folder(tmp_path / "cat"), 4.0), (_folder(tmp_path / "cat_4fps"), None)):
        (window,) = windows(video, fps=2, image_fps=rate)
        assert window.indices.tolist() == [0, 2, 4, 6, 8]
        assert window.timestamps == pytest.approx([0, 0.5, 1, 1.5, 2])
        assert not window.remark


def test_exif_times_count_with_their_parts_of_a_second(tmp_path: Path) -> None:
    taken = [f"2024:05:06 10:00:{place // 4:02d}.{25 * (place % 4):02d}" for place in range(10)]
    video = _folder(tmp_path / "cat", taken=taken)
    (window,) = windows(video, fps=2)
    assert window.indices.tolist() == [0, 2, 4, 6, 8]
    with VideoDecoder() as decoder:
        assert decoder.timeline(video, exif_times=True).info.fps == pytest.approx(4)
        assert decoder.timeline(video).info.fps is None


@pytest.mark.parametrize("taken", [["2024:05:06 10:00:00"] * 10, ["nonsense"] * 10, ["2024:05:06 10:00:01"] + [""] * 9])
def test_exif_times_that_do_not_rise_tell_nothing(tmp_path: Path, taken: list[str]) -> None:
    (window,) = windows(_folder(tmp_path / "cat", taken=taken), fps=2)
    assert (len(window.frames), window.remark) == (10, UNTIMED)


def test_a_segment_of_untimed_images_may_still_be_chosen(tmp_path: Path) -> None:
    video = _folder(tmp_path / "cat")
    with VideoDecoder() as decoder:
        timeline = decoder.timeline(video)
    assert timeline.untimed
    assert np.allclose(timeline.times, np.arange(10) / 24)
    (part,) = segments(video, timeline, fps=2, start=2 / 24)
    assert part.indices.tolist() == list(range(2, 10))
