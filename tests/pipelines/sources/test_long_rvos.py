"""Long-RVOS, in its layout as its repository describes it, made of the frames and masks of Ref-YouTube-VOS."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.sources.base import Reading
from pipelines.sources.long_rvos import LongRVOS
from sgmg.masks import rle_to_mask, rle_union

VIDEO = "31f1e819d1"
SIZE = (240, 428)


@pytest.fixture
def long_rvos(data_kit: Path, tmp_path: Path) -> Path:
    kit = data_kit / "refytvos/train"
    shutil.copytree(kit / "JPEGImages" / VIDEO, tmp_path / "test/JPEGImages" / VIDEO)
    names = sorted(path.stem for path in (kit / "JPEGImages" / VIDEO).iterdir())
    for object_id, number in (("7", 1), ("9", 2)):
        folder = tmp_path / "test/Annotations" / VIDEO / object_id
        folder.mkdir(parents=True)
        for name in names:
            mask = np.asarray(Image.open(kit / "Annotations" / VIDEO / f"{name}.png")) == number
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
    (tmp_path / "test/Annotations" / VIDEO / "9" / f"{names[0]}.png").unlink()  # it is not there yet
    expressions = {
        "0": {"exp": "the cart", "obj_id": 7, "type": "static"},
        "1": {"exp": "the man who walks", "obj_id": "9", "type": "dynamic"},
        "2": {"exp": "the brown cart rolling down", "obj_id": 7, "type": "text_hybrid"},
    }
    videos = {VIDEO: {"frames": names, "expressions": expressions}}
    (tmp_path / "test/meta_expressions.json").write_text(json.dumps({"videos": videos}))
    return tmp_path


def read_only_one(root: Path) -> Reading:
    source = LongRVOS(Folder(str(root)), "test")
    (item,) = source.items()
    return source.read(item)


def test_each_object_has_a_folder_and_a_frame_without_png_does_not_show_it(long_rvos: Path, data_kit: Path) -> None:
    record = read_only_one(long_rvos).record
    assert [(one.id, one.object_ids, one.kind) for one in record.expressions] == [
        ("0", (1,), "static"),
        ("1", (2,), "dynamic"),
        ("2", (1,), "hybrid"),
    ]
    maps = sorted((data_kit / "refytvos/train/Annotations" / VIDEO).iterdir())
    for track in record.objects:
        masks = [rle_to_mask(str(rle), SIZE) for rle in track.rle]
        for frame, path in enumerate(maps):
            there = track.id == 1 or frame > 0
            np.testing.assert_array_equal(masks[frame], (np.asarray(Image.open(path)) == track.id) & there)
    assert record.objects[1].rle[0] == rle_union([], SIZE)


def change(root: Path, how: Callable[[dict[str, Any]], object]) -> None:
    file = root / "test/meta_expressions.json"
    content = json.loads(file.read_text())
    how(content["videos"][VIDEO]["expressions"]["0"])
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda one: one.update(obj_id=[7]), r"'obj_id' should name a folder of masks, but is \[7\]"),
        (lambda one: one.update(obj_id="../7"), "'obj_id' should name a folder of masks"),
    ],
)
def test_a_sentence_that_is_described_wrongly_sends_its_video_to_quarantine(
    long_rvos: Path, how: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(long_rvos, how)
    with pytest.raises(BadItem, match=f"expression '0': {message}"):
        read_only_one(long_rvos)


def test_a_kind_that_is_not_known_is_none(long_rvos: Path) -> None:
    change(long_rvos, lambda one: one.update(type="odd"))
    assert [one.kind for one in read_only_one(long_rvos).record.expressions] == ["", "dynamic", "hybrid"]


def test_masks_that_were_not_unpacked_are_no_truth_that_nothing_is_there(long_rvos: Path) -> None:
    shutil.rmtree(long_rvos / "test/Annotations" / VIDEO / "9")
    with pytest.raises(BadItem, match=f"{VIDEO}/9 is missing: the masks of an object"):
        read_only_one(long_rvos)
    shutil.rmtree(long_rvos / "test/Annotations")
    with pytest.raises(LayoutError, match="test/Annotations does not exist"):
        read_only_one(long_rvos)


def test_a_mask_of_another_size_is_named(long_rvos: Path) -> None:
    path = next((long_rvos / "test/Annotations" / VIDEO / "7").iterdir())
    Image.new("L", (9, 9)).save(path)
    with pytest.raises(BadItem, match=f"{path}: the mask is 9x9"):
        read_only_one(long_rvos)


def test_there_are_three_splits(long_rvos: Path) -> None:
    with pytest.raises(LayoutError, match=r"long-rvos has no split 'val'. Choose one of: train, valid, test"):
        LongRVOS(Folder(str(long_rvos)), "val")
