import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from patience import PATIENCE
from pipelines.drawing.overlay import COLOURS, colour_of
from pipelines.errors import BadItem
from pipelines.exports.overlay_video import poster_name, write_overlay
from pipelines.files import Folder
from pipelines.predictions import Prediction
from pipelines.video.listing import Video

Writer = Callable[..., Path]
Predict = Callable[..., Prediction]
SIZE = (96, 128)


def greys(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [np.full((*size, 3), 100, dtype=np.uint8)] * count


def band(t: int, number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Masks of the number-th of four columns."""
    masks = np.zeros((t, *size), np.bool_)
    masks[:, :, size[1] // 4 * number : size[1] // 4 * (number + 1)] = True
    return masks


def names(places: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{place:05d}" for place in places)


def frames_of(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [float(frame.time or 0) for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def colour_at(picture: np.ndarray, number: int) -> int:
    """Which expression tints the middle of the number-th column, or -1."""
    left = (picture.shape[1] - 128) // 2
    pixel = picture[40:50, left + 32 * number + 12 : left + 32 * number + 20].mean(axis=(0, 1))
    away = [np.abs(pixel - (np.array(colour) + 100) / 2).max() for colour in COLOURS]
    return int(np.argmin(away)) if min(away) < 12 else -1


def test_every_expression_has_its_colour_in_the_order_predictions_are_read_in(
    make_video: Writer, predict: Predict, tmp_path: Path
) -> None:
    video = Video(str(make_video("a.mp4", greys(3))))
    asked = [predict("a", id, band(3, place), frame_names=names(range(3))) for place, id in enumerate(("10", "b", "9"))]
    write_overlay(Folder(str(tmp_path)), "overlay/a.mp4", video, [asked])
    _, pictures = frames_of(tmp_path / "overlay/a.mp4")
    assert [colour_at(pictures[1], number) for number in range(4)] == [1, 2, 0, -1]
    strip = pictures[1][SIZE[0] :]
    for number in range(3):  # a square of each colour below the picture
        assert (np.abs(strip.astype(int) - np.array(colour_of(number))).max(axis=-1) < 40).any()
    assert pictures[0].shape[0] % 2 == pictures[0].shape[1] % 2 == 0


def test_frames_keep_their_times_and_masks_over_segments(make_video: Writer, predict: Predict, tmp_path: Path) -> None:
    stamps = [0, 40, 80, 500, 520, 1000, 1900, 2000, 2040, 2080]
    video = Video(str(make_video("a.mp4", greys(10), stamps=stamps)))
    places = [[0, 3, 4], [5, 9]]
    parts = [
        [predict("a", "0", band(len(part), number), frame_names=names(part), segment=number, start_frame=3 * number)]
        for number, part in enumerate(places)
    ]
    write_overlay(Folder(str(tmp_path)), "a.mp4", video, parts)
    times, pictures = frames_of(tmp_path / "a.mp4")
    np.testing.assert_allclose(times, [stamps[place] / 1000 for part in places for place in part], atol=1e-4)
    assert [[colour_at(picture, number) for number in (0, 1)] for picture in pictures] == [[0, -1]] * 3 + [[-1, 0]] * 2


def test_an_avi_of_several_segments_is_drawn_too(make_video: Writer, predict: Predict, tmp_path: Path) -> None:
    video = Video(str(make_video("a.avi", greys(30), codec="mpeg4")))
    parts = [[predict("a", "0", band(5, 0), frame_names=names(range(at, at + 10, 2)))] for at in (0, 10, 20)]
    write_overlay(Folder(str(tmp_path)), "a.mp4", video, parts)
    times, pictures = frames_of(tmp_path / "a.mp4")
    np.testing.assert_allclose(times, np.arange(15) * 2 / 25, atol=1e-4)
    assert {colour_at(picture, 0) for picture in pictures} == {0}


def test_a_folder_of_images_is_a_video(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for place, image in enumerate(greys(4)):
        cv2.imwrite(str(tmp_path / f"in/img_{place}.jpg"), image)
    asked = [predict("a", "0", band(2, 2), frame_names=("img_1", "img_3"))]
    write_overlay(Folder(str(tmp_path)), "a.mp4", Video(str(tmp_path / "in"), images=True), [asked])
    times, pictures = frames_of(tmp_path / "a.mp4")
    np.testing.assert_allclose(times, [0, 2 / 24], atol=1e-4)
    assert colour_at(pictures[0], 2) == 0


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((240, 400), (150, 250)), ((31, 77), (31, 77)), ((400, 50), (250, 31))],
)
def test_sides_are_even_and_no_longer_than_asked(
    size: tuple[int, int], drawn: tuple[int, int], make_video: Writer, predict: Predict, tmp_path: Path
) -> None:
    video = Video(str(make_video("a.mkv", greys(2, size), codec="ffv1", pixels="bgr0")))
    said = predict("a", "0", np.ones((2, *size), np.bool_), frame_names=names(range(2)), text="what it is")
    write_overlay(Folder(str(tmp_path)), "a.mp4", video, [[said]], long_edge=250)
    _, pictures = frames_of(tmp_path / "a.mp4")
    height, width = pictures[0].shape[:2]
    assert width == 320  # where sentences can be read
    assert height % 2 == 0
    left = (width - drawn[1]) // 2
    tinted = np.abs(pictures[0].astype(int) - (np.array(COLOURS[0]) + 100) // 2).max(axis=-1) < 25
    rows, columns = (
        np.flatnonzero(tinted.mean(axis=1) > 0.5 * drawn[1] / width),
        np.flatnonzero(tinted[5:20].any(axis=0)),
    )
    assert abs(len(rows) - drawn[0]) <= 4
    assert abs(columns[0] - left) <= 3
    assert abs(columns[-1] - (left + drawn[1] - 1)) <= 3
    with Image.open(tmp_path / "a.jpg") as poster:
        assert poster.size == drawn[::-1]


def test_the_still_shows_the_object_at_its_best(make_video: Writer, predict: Predict, tmp_path: Path) -> None:
    video = Video(str(make_video("a.mp4", greys(3))))
    masks = band(3, 0)
    masks[0] = False
    said = predict("a", "0", masks, frame_names=names(range(3)))
    write_overlay(Folder(str(tmp_path)), "overlay/a.mp4", video, [[said]])
    assert poster_name("overlay/a.mp4") == "overlay/a.jpg"
    with Image.open(io.BytesIO((tmp_path / "overlay/a.jpg").read_bytes())) as poster:
        assert colour_at(np.asarray(poster.convert("RGB")), 0) == 0


def test_long_and_many_sentences_leave_room_for_the_video(make_video: Writer, predict: Predict, tmp_path: Path) -> None:
    video = Video(str(make_video("a.mp4", greys(1))))
    said = [predict("a", str(id), band(1, 0), frame_names=("00000",), text="ha\u202e\n" * 500) for id in range(30)]
    write_overlay(Folder(str(tmp_path)), "a.mp4", video, [said])
    assert frames_of(tmp_path / "a.mp4")[1][0].shape[0] < 1500


def test_a_video_that_changed_is_told_and_the_old_overlay_stays(
    make_video: Writer, predict: Predict, tmp_path: Path
) -> None:
    out = Folder(str(tmp_path / "out"))
    out.write("a.mp4", b"old")
    video = Video(str(make_video("a.mp4", greys(2))))
    with pytest.raises(BadItem, match=re.escape("its frames are 128 x 96, those of its masks 64 x 96")):
        write_overlay(out, "a.mp4", video, [[predict("a", "0", np.ones((1, 96, 64), np.bool_))]])
    with pytest.raises(BadItem, match="it has no frame 00005"):
        write_overlay(out, "a.mp4", video, [[predict("a", "0", band(2, 0))]])
    parts = [[predict("a", id, band(1, 0), frame_names=("00000",))] for id in ("0", "1")]
    with pytest.raises(ValueError, match="expression 1 is missing in the first segment"):
        write_overlay(out, "a.mp4", video, parts)
    with pytest.raises(ValueError, match="has no predictions to draw"):
        write_overlay(out, "a.mp4", video, [])
    assert out.names() == ["a.mp4"]
    assert out.read("a.mp4") == b"old"


_LONG = """
import sys
import numpy as np
from pipelines.exports.overlay_video import write_overlay
from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack
from pipelines.video.listing import Video
from sgmg.masks import mask_to_rle
path, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
mask = np.zeros((360, 640), np.bool_)
mask[100:200, 100:300] = True
def segments():
    for start in range(0, count, 100):
        names = tuple(f"{place:05d}" for place in range(start, start + 100))
        track = QueryTrack((mask_to_rle(mask),) * 100, ((0.0,) * 4,) * 100, (0.5,) * 100)
        yield [Prediction("videos", "", "v", "0", "it", 640, 360, names, (track,), 0.5, "", path, "")]
write_overlay(Folder(out), "a.mp4", Video(path), segments())
print(int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024)
"""
"""Not ru_maxrss, which begins with what the process that started this one holds."""


@pytest.mark.slow
def test_a_long_video_needs_no_more_memory_than_a_short_one(make_video: Writer, tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        for place in range(900):
            yield np.full((360, 640, 3), place % 200, dtype=np.uint8)

    path = make_video("a.mp4", frames(), options={"preset": "ultrafast"})

    def megabytes(count: int) -> int:
        words = [sys.executable, "-c", _LONG, str(path), str(tmp_path / "out"), str(count)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout)

    short, long = megabytes(100), megabytes(900)
    assert long < short + 60, f"{short} MB for 100 frames, {long} MB for 900"  # of 600 MB of pixels
