from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.sources.frame_files import FrameFiles
from tool_files import write_frames


def files(root: Path, *, frames: Path | str = "", videos: Path | str = "") -> FrameFiles:
    return FrameFiles(Folder(str(root)), str(frames), str(videos))


def test_listed_images_may_have_another_suffix(tmp_path: Path) -> None:
    write_frames(tmp_path, ["cat/1.png", "cat/2.png"])
    pictures = files(tmp_path).listed("cat", ["cat/2.jpg", "cat/1.jpg"], None)
    assert pictures.names == ("2", "1")
    assert pictures.frames == tuple((tmp_path / f"cat/{name}.png").read_bytes() for name in ("2", "1"))


def test_images_of_one_name_in_several_folders_are_numbered(tmp_path: Path) -> None:
    write_frames(tmp_path, ["a/left.jpg", "b/left.jpg"])
    assert files(tmp_path).listed("v", ["a/left.jpg", "b/left.jpg"], None).names == ("00000", "00001")


def test_whole_folders_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    write_frames(tmp_path, ["cat/f10.jpg", "cat/f9.jpg"])
    (tmp_path / "cat/notes.txt").touch()
    assert files(tmp_path).whole("cat", None).names == ("f9", "f10")
    assert files(tmp_path, frames=tmp_path / "cat").whole("cat", None, folders=("cat", "")).names == ("f9", "f10")


@pytest.mark.parametrize("name", ["cat.mp4", "day 1/cat.MOV"])
def test_video_files_are_found_by_the_name_of_the_video_or_another(name: str, make_video: Any, tmp_path: Path) -> None:
    make_video(f"videos/{name}", np.zeros((3, 20, 30, 3), np.uint8))
    video = name.rpartition(".")[0]
    for found in (files(tmp_path, videos=tmp_path / "videos"), files(tmp_path / "videos")):
        assert found.whole(video, None).names == ("00000", "00001", "00002")
        assert found.whole("other", None, [name]).source == name


def test_two_video_files_of_one_name_or_none_are_named(make_video: Any, tmp_path: Path) -> None:
    for name in ("cat.mp4", "cat.mkv"):
        make_video(name, np.zeros((3, 20, 30, 3), np.uint8))
    with pytest.raises(BadItem, match=r"holds cat.mkv and cat.mp4. Leave one of them"):
        files(tmp_path).whole("cat", None)
    with pytest.raises(BadItem, match=r"holds no video file dog.mp4 .*, and no folder dog of images. Give"):
        files(tmp_path).whole("dog", None)
    with pytest.raises(BadItem, match=f"there are no images in {tmp_path}/dog. Put its frames there"):
        files(tmp_path, frames=tmp_path).whole("dog", None)


def test_turned_images_are_turned_if_the_annotated_size_is_that_of_viewers(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    for size in ((30, 20), (20, 30)):
        pictures = files(tmp_path).listed("a", ["a.jpg"], size)
        assert (pictures.width, pictures.height) == size
    with pytest.raises(BadItem, match="Give --exif apply"):
        files(tmp_path).listed("a", ["a.jpg"], None)


@pytest.mark.parametrize("name", ["../a", "/a", "a\\b"])
def test_names_that_leave_their_folder_are_refused(name: str, tmp_path: Path) -> None:
    for read in (lambda: files(tmp_path).whole(name, None), lambda: files(tmp_path).listed("a", [name], None)):
        with pytest.raises(BadItem, match="would leave its folder"):
            read()


def test_folders_have_to_exist(tmp_path: Path) -> None:
    files(tmp_path, frames=tmp_path).check()
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(LayoutError, match=f"--videos {tmp_path}/{name} is no folder"):
            files(tmp_path, videos=tmp_path / name).check()


def test_two_images_of_one_frame_are_refused_and_never_guessed_between(tmp_path: Path) -> None:
    write_frames(tmp_path, ["cat/1.jpg", "cat/1.png", "cat/2.jpg"])
    with pytest.raises(BadItem, match=r"/cat holds two images called 1\. It needs one a frame"):
        files(tmp_path).whole("cat", None)
    with pytest.raises(BadItem, match=r"cat/1.jpeg does not exist"):
        files(tmp_path).listed("cat", ["cat/1.jpeg"], None)
