import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, Dropped, LayoutError
from tool_files import HEIGHT, WIDTH, compressed, masks_of, opened, read_one, said, write_frames, write_json


@pytest.fixture
def masks() -> np.ndarray:
    """Masks of two objects in three annotated frames; the second is absent in the last."""
    found = np.random.default_rng(0).random((3, 2, HEIGHT, WIDTH)) < 0.4
    found[2, 1] = False
    return found


@pytest.fixture
def sa_v(masks: np.ndarray, make_video: Any, tmp_path: Path) -> Path:
    """A folder with a video of ten frames, its masks and a table of sentences."""
    make_video("sav_000001.mp4", np.zeros((10, HEIGHT, WIDTH, 3), np.uint8), rate=24)
    content = {
        "video_id": "sav_000001",
        "video_width": float(WIDTH),
        "video_height": float(HEIGHT),
        "masklet": [[compressed(mask) for mask in frame] for frame in masks],
        "masklet_id": [0, 1],
        "masklet_frame_count": [3, 2],
    }
    write_json(tmp_path / "sav_000001_manual.json", content)
    write_json(tmp_path / "sav_000001_auto.json", content | {"masklet": "ignored"})
    (tmp_path / "expressions.csv").write_text("video,object_id,text\nsav_000001,0,the cat\nsav_000001,1,a dog\n")
    return tmp_path


def test_every_fourth_frame_is_annotated_and_kept(sa_v: Path, masks: np.ndarray) -> None:
    reading = read_one(opened("sa-v", sa_v))
    record = reading.record
    assert not reading.dropped
    assert (record.video, record.frame_names) == ("sav_000001", ("00000", "00004", "00008"))
    assert record.timestamps == pytest.approx((0, 4 / 24, 8 / 24))
    for place in (0, 1):
        np.testing.assert_array_equal(masks_of(record, place), masks[:, place])
    assert said(record) == [("the cat", (0,)), ("a dog", (1,))]


def test_one_file_or_automatic_masks_alone_can_be_given(sa_v: Path, masks: np.ndarray) -> None:
    manual = sa_v / "sav_000001_manual.json"
    np.testing.assert_array_equal(masks_of(read_one(opened("sa-v", manual)).record), masks[:, 0])
    manual.rename(sa_v / "sav_000001_auto.json")
    np.testing.assert_array_equal(masks_of(read_one(opened("sa-v", sa_v)).record), masks[:, 0])


@pytest.mark.parametrize(("count", "names"), [(10, ("00000", "00004", "00008")), (3, ("00000", "00001", "00002"))])
def test_frames_may_be_images_all_of_them_or_the_annotated_ones(count: int, names: tuple[str, ...], sa_v: Path) -> None:
    write_frames(sa_v / "frames/sav_000001", [f"{frame:05d}.jpg" for frame in range(count)])
    assert read_one(opened("sa-v", sa_v, sa_v / "frames")).record.frame_names == names


def test_sentences_about_no_masklet_are_dropped(sa_v: Path) -> None:
    (sa_v / "expressions.csv").write_text(
        "video,object_id,text,split\nsav_000001,0,a cat,train\nsav_000001,7,b,train\n"
    )
    assert read_one(opened("sa-v", sa_v)).dropped == (
        Dropped("sav_000001", "object without pixels", "expression 1, of object 7: b"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masklet": [[]], "masklet_id": [0]}, r"masklet\[0\] has 0 masks for 1 masklet_id"),
        ({"masklet": [], "masklet_id": [0]}, "0 frames are annotated, one of 4, but .* has 10 frames"),
        ({"masklet": [[]] * 4, "masklet_id": []}, "4 frames are annotated, one of 4, but .* has 10 frames"),
        ({"masks": []}, "is not SA-V JSON: Object missing required field `masklet`"),
        ({"masklet": [], "masklet_id": [], "video_width": 9, "video_height": 9}, "frames are annotated"),
        (
            {"masklet": [[compressed(np.ones((9, 9), bool))]] * 3, "masklet_id": [0]},
            r"RLE has size \[9, 9\], but height",
        ),
    ],
)
def test_masks_that_do_not_fit_send_their_video_to_quarantine(
    content: dict[str, Any], message: str, sa_v: Path
) -> None:
    write_json(sa_v / "sav_000001_manual.json", content)
    with pytest.raises(BadItem, match=message):
        read_one(opened("sa-v", sa_v))


def test_a_video_of_the_table_without_masks_is_quarantined(sa_v: Path) -> None:
    shutil.copy(sa_v / "sav_000001_manual.json", sa_v / "sav_000002_manual.json")
    (sa_v / "expressions.csv").write_text("video,object_id,text\nsav_000003,0,a cat\n")
    with pytest.raises(BadItem, match=f"{sa_v}/sav_000003_manual.json does not exist. Put it there, or mend"):
        read_one(opened("sa-v", sa_v))


def test_a_folder_without_masks_or_without_table_stops_everything(sa_v: Path) -> None:
    (sa_v / "expressions.csv").rename(sa_v / "other.csv")
    with pytest.raises(LayoutError, match=f"{sa_v}/expressions.csv does not exist. Write a table with the columns"):
        opened("sa-v", sa_v).items()
    (sa_v / "other.csv").rename(sa_v / "expressions.csv")
    for path in sa_v.glob("*.json"):
        path.rename(path.with_name(f"masks-of-{path.name.removesuffix('_manual.json')}.json"))
    for path in sa_v.glob("*_auto*"):
        path.rename(sa_v / "x.json")
    with pytest.raises(LayoutError, match=r"holds no <video>_manual\.json"):
        opened("sa-v", sa_v).items()
