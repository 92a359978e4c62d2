"""A folder of images as a video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.errors import BadItem
from pipelines.video.decoder import VideoDecoder, windows
from pipelines.video.frame_reader import Damage, Frame
from pipelines.video.frames_by_name import FramesByName
from pipelines.video.image_folder import TURNED, images_frames, images_timeline
from pipelines.video.listing import Video
from pipelines.video.segments import segments

RNG = np.random.default_rng(0)


def _folder(root: Path, names: list[str], size: tuple[int, int] = (8, 6)) -> tuple[Video, list[np.ndarray]]:
    images = [RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for _ in names]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(root / name)
    return Video(str(root), images=True), images


def test_images_come_in_the_order_of_their_numbers_and_keep_their_names(tmp_path: Path) -> None:
    video, images = _folder(tmp_path, ["f_2.png", "f_10.png", "f_1.png"])
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "._f_1.png").write_bytes(b"x")
    (window,) = windows(video)
    assert window.names == ("f_1", "f_2", "f_10")
    assert np.array_equal(window.frames, np.stack([images[2], images[0], images[1]]))
    assert window.timestamps == pytest.approx([0, 1 / 24, 2 / 24])


def test_a_folder_reads_through_a_filesystem_too(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    video, images = _folder(tmp_path / "a b", ["0.png", "1.png"])
    (window,) = windows(Video(f"file://{video.path}", images=True))
    assert np.array_equal(window.frames, np.stack(images))


def test_damaged_and_missing_images_are_left_out_and_named(tmp_path: Path) -> None:
    video, _ = _folder(tmp_path, [f"{place}.png" for place in range(6)])
    timeline = images_timeline(video)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    (tmp_path / "3.png").unlink()
    (tmp_path / "5.png").write_bytes(b"no image")
    assert isinstance(timeline.keys, tuple)
    found = list(images_frames(video, timeline.info, timeline.keys))
    assert [frame.key for frame in found if isinstance(frame, Frame)] == ["0.png", "2.png", "4.png"]
    assert isinstance(found[-1], Damage)
    assert "5.png: the file is no image" in found[-1].reason
    with VideoDecoder() as decoder:
        (window,) = decoder.windows(segments(video, timeline)[0])
    assert window.indices.tolist() == [0, 2, 4]
    assert "3 of its frames are damaged or gone" in window.note


def test_grey_palette_deep_and_transparent_images_become_red_green_blue(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "1.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(tmp_path / "2.png")
    Image.fromarray(np.dstack([grey, grey, grey, np.zeros_like(grey)])).save(tmp_path / "3.png")
    (window,) = windows(Video(str(tmp_path), images=True))
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert all(np.array_equal(window.frames[place], expected) for place in range(3))
    assert (window.frames[3] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_show_them(tmp_path: Path, orientation: int) -> None:
    stored = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for place in range(2):
        Image.fromarray(stored).save(tmp_path / f"{place}.png", exif=exif)
    (window,) = windows(Video(str(tmp_path), images=True))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "0.png")))
    assert np.array_equal(window.frames, np.stack([shown, shown]))
    assert window.remark == ("" if orientation == 1 else TURNED)
    with VideoDecoder() as decoder, FramesByName(decoder, Video(str(tmp_path), images=True)) as frames:
        (found,) = frames.read(["1"])
    assert np.array_equal(found.image, shown)


def test_a_later_image_that_is_turned_is_said_and_a_shot_of_its_own(tmp_path: Path) -> None:
    """At half a turn nothing else would tell."""
    stored = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    for place in range(4):
        Image.fromarray(stored).save(tmp_path / f"{place}.png", exif=exif if place == 2 else None)
    found = list(windows(Video(str(tmp_path), images=True)))
    assert [(window.indices.tolist(), window.remark) for window in found] == [([0, 1], ""), ([2], TURNED), ([3], "")]
    assert np.array_equal(found[1].frames[0], stored[::-1, ::-1])


def test_the_photos_that_lay_on_their_side(case_kit: Path) -> None:
    (window,) = windows(Video(str(case_kit / "exif6"), images=True))
    assert window.frames.shape == (4, 160, 120, 3)


def test_a_folder_without_a_good_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(BadItem, match=r"not one image can be decoded \(0.png"):
        images_timeline(Video(str(tmp_path), images=True))
    (tmp_path / "0.png").unlink()
    with pytest.raises(BadItem, match="no image"):
        images_timeline(Video(str(tmp_path), images=True))
    with pytest.raises(BadItem, match="cannot be listed"):
        images_timeline(Video(str(tmp_path / "gone"), images=True))
