"""Frames as files: what annotation decoded, nothing else, and none twice."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem
from pipelines.exports.frame_files import encode_frame, frame_times, write_frames
from pipelines.files import Folder
from pipelines.predictions import Prediction
from pipelines.video.decoder import VideoDecoder
from pipelines.video.frames_by_name import FramesByName
from pipelines.video.listing import Video

Writer = Callable[..., Path]
Predict = Callable[..., Prediction]
SIZE = (48, 64)


def colours(count: int) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), (40 * place, 200 - 20 * place, 90), dtype=np.uint8) for place in range(count)]


def rows(predict: Predict, *places: int, times: bool = True, **values: object) -> list[Prediction]:
    names = tuple(f"{place:05d}" for place in places)
    stamps = {"timestamps": tuple(place / 25 for place in places)} if times else {}
    return [predict("v", "0", np.zeros((len(places), *SIZE), np.bool_), frame_names=names, **stamps, **values)]


def decoded(video: Video, names: list[str]) -> dict[str, np.ndarray]:
    with VideoDecoder(100) as decoder, FramesByName(decoder, video) as frames:
        return {frame.name: frame.image for frame in frames.read(names)}


def jpeg(image: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(encode_frame(image))) as stored:
        return np.asarray(stored)


@pytest.mark.parametrize("times", [True, False])
def test_the_predicted_frames_are_written_as_they_were_decoded(
    make_video: Writer, predict: Predict, tmp_path: Path, times: bool
) -> None:
    video = Video(str(make_video("a.mp4", colours(6))))
    parts = [rows(predict, 0, 2, times=times), rows(predict, 5, times=times, segment=1, start_frame=2)]
    assert write_frames(Folder(str(tmp_path)), "v", video, parts) == 3
    files = sorted((tmp_path / "frames" / "v").iterdir())
    assert [path.name for path in files] == ["00000.jpg", "00002.jpg", "00005.jpg"]
    expected = decoded(video, ["00000", "00002", "00005"])
    for path in files:
        with Image.open(path) as image:
            assert image.format == "JPEG"
            np.testing.assert_array_equal(np.asarray(image), jpeg(expected[path.stem]))
        assert np.abs(jpeg(expected[path.stem]).astype(int) - expected[path.stem]).max() < 4


def test_frames_that_are_there_are_not_written_again(make_video: Writer, predict: Predict, tmp_path: Path) -> None:
    out, video = Folder(str(tmp_path)), Video(str(make_video("a.mp4", colours(4))))
    out.write("frames/v/00001.jpg", b"there")
    assert write_frames(out, "v", video, [rows(predict, 0, 1, 3)], ["00001"]) == 2
    assert out.read("frames/v/00001.jpg") == b"there"
    assert out.names("frames/v") == ["00000.jpg", "00001.jpg", "00003.jpg"]


def test_images_of_a_folder_are_upright_and_of_one_size(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wide, turned = Image.new("RGB", (SIZE[1], SIZE[0]), (200, 30, 60)), Image.new("RGB", SIZE, (30, 200, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    wide.save(tmp_path / "in" / "img_1.png")
    turned.save(tmp_path / "in" / "img_2.png", exif=exif)
    Image.new("RGB", (32, 24)).save(tmp_path / "in" / "img_3.png")
    names = ("img_1", "img_2", "img_3")
    row = predict("v", "0", np.zeros((3, *SIZE), np.bool_), frame_names=names, timestamps=(0.0, 1 / 24, 2 / 24))
    assert write_frames(Folder(str(tmp_path)), "v", Video(str(tmp_path / "in"), images=True), [[row]]) == 3
    for name in names:
        with Image.open(tmp_path / "frames" / "v" / f"{name}.jpg") as image:
            assert (image.height, image.width) == SIZE


def test_a_video_that_changed_or_is_gone_is_told_and_what_can_be_decoded_is_written(
    make_video: Writer, predict: Predict, tmp_path: Path
) -> None:
    out, path = Folder(str(tmp_path)), make_video("a.mp4", colours(3))
    video = Video(str(path))
    with pytest.raises(BadItem, match="2 of its predicted frames cannot be decoded any more"):
        write_frames(out, "v", video, [rows(predict, 0, 2, 7, 8)])
    assert out.names("frames/v") == ["00000.jpg", "00002.jpg"]
    small = [predict("v", "0", np.zeros((1, 24, 32), np.bool_), frame_names=("00000",))]
    with pytest.raises(BadItem, match="its frames are 64 x 48, those of its masks 32 x 24"):
        write_frames(out, "w", video, [small])
    path.unlink()
    with pytest.raises(BadItem, match="the file is gone"):
        write_frames(out, "w", video, [rows(predict, 0)])
    assert out.names("frames/w") == []


def test_rows_that_lack_frames_of_each_other_give_all_in_order(predict: Predict) -> None:
    one, two = rows(predict, 0, 1, 3)[0], rows(predict, 0, 2, 3, times=False)[0]
    assert frame_times([one, two]) == {"00000": 0.0, "00001": 0.04, "00002": None, "00003": 0.12}
    assert list(frame_times([one, two])) == ["00000", "00001", "00002", "00003"]
    one, two = replace(one, frame_names=("2", "10", "11")), replace(two, frame_names=("2", "9", "11"))
    assert list(frame_times([one, two])) == ["2", "9", "10", "11"]
