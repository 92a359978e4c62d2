import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.manifest import NO_PIXELS
from pipelines.prepare.row_info import row_info
from pipelines.records import Record, records_of, table_of
from pipelines.sources.base import Item, Reading
from pipelines.sources.refcoco import RefCoco
from sgmg.masks import rle_to_mask

SETS = [(name, split) for name in ("refcoco", "refcoco+") for split in ("train", "val", "testA", "testB")]
SETS += [("refcocog", split) for split in ("train", "val", "test")]


@pytest.fixture
def root(data_kit: Path, tmp_path: Path) -> Path:
    """RefCOCO as its owners distribute it, in a folder where tests may damage it."""
    (tmp_path / "refcoco").mkdir()
    shutil.copytree(data_kit / "refcoco" / "train2014", tmp_path / "train2014")
    for name in ("refs(unc).p", "instances.json"):
        shutil.copy(data_kit / "refcoco" / "refcoco" / name, tmp_path / "refcoco" / name)
    return tmp_path


def change_instances(root: Path, change: Callable[[Any], object]) -> None:
    path = root / "refcoco" / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_refs(root: Path, change: Callable[[Any], object]) -> None:
    path = root / "refcoco" / "refs(unc).p"
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, protocol=2))


def annotation(coco: Any, number: int) -> Any:
    return next(one for one in coco["annotations"] if one["id"] == number)


def train(root: Path) -> RefCoco:
    return RefCoco(Folder(str(root)), "train")


def readings(source: RefCoco) -> list[Reading | BadItem]:
    def read(item: Item) -> Reading | BadItem:
        try:
            return source.read(pickle.loads(pickle.dumps(item)))
        except BadItem as error:
            return error

    return [read(item) for item in source.items()]


def records(source: RefCoco) -> list[Record]:
    return [source.read(item).record for item in source.items()]


def only_bad(root: Path) -> BadItem:
    """The one image of the train split that is quarantined, while all others are read."""
    found = readings(train(root))
    bad = [one for one in found if isinstance(one, BadItem)]
    assert len(bad) == 1
    assert len(found) == 6
    return bad[0]


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_the_converted_json_is_reproduced_from_the_raw_files(data_kit: Path, dataset: str, split: str) -> None:
    path = data_kit / "refcoco" / dataset / f"instances_{dataset}_{split}.json"
    expected = json.loads(path.read_text())
    names = {category["id"]: category["name"] for category in expected["categories"]}
    images, annotations = expected["images"], expected["annotations"]
    found = {}
    for record in records(RefCoco(Folder(str(data_kit / "refcoco")), split, dataset)):
        tracks = {track.id: track for track in record.objects}
        for one in record.expressions:
            (number,) = one.targets
            described = (record.source, record.height, record.width, one.text, number, tracks[number].boxes)
            found[one.external_id] = (*described, tracks[number].area, tracks[number].category)
    for image, one in zip(images, annotations, strict=True):
        x, y, width, height = one["bbox"]
        box = (x, y, min(x + width, image["width"]), min(y + height, image["height"]))
        told = (f"train2014/{image['file_name']}", image["height"], image["width"], image["caption"])
        told += (one["original_id"], (pytest.approx(box),), (one["area"],), names[one["category_id"]])
        assert found.pop(str(image["id"])) == told
    assert not found


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_masks_are_those_that_cocos_own_reader_draws(data_kit: Path, dataset: str, split: str) -> None:
    coco: Any = COCO(data_kit / "refcoco" / dataset / "instances.json")
    for record in records(RefCoco(Folder(str(data_kit / "refcoco")), split, dataset)):
        for track in record.objects:
            mask = rle_to_mask(track.rle[0] or "", (record.height, record.width))
            expected = coco.annToRLE(coco.anns[track.id])["counts"].decode()
            assert (mask == rle_to_mask(expected, (record.height, record.width))).all()
            assert mask.sum() == pytest.approx(coco.anns[track.id]["area"], rel=0.03)


@pytest.mark.parametrize(("dataset", "split"), SETS)
def test_the_converted_layout_gives_the_records_of_the_raw_one(
    data_kit: Path, tmp_path: Path, dataset: str, split: str
) -> None:
    kit = data_kit / "refcoco"
    (tmp_path / dataset).mkdir()
    (tmp_path / "train2014").symlink_to(kit / "train2014")
    name = f"{dataset}/instances_{dataset}_{split}.json"
    shutil.copy(kit / name, tmp_path / name)
    converted = records(RefCoco(Folder(str(tmp_path)), split, dataset))
    raw = records(RefCoco(Folder(str(kit)), split, dataset))

    def rows(found: list[Record]) -> list[dict[str, object]]:
        return [{**one.to_row(), "source_fingerprint": ""} for one in found]

    assert rows(converted) == rows(raw)


def test_frames_are_the_bytes_of_the_files_and_every_image_of_the_split_is_there(data_kit: Path) -> None:
    root = data_kit / "refcoco"
    refs = pickle.loads((root / "refcoco" / "refs(unc).p").read_bytes())
    for split in ("train", "val", "testA", "testB"):
        found = records(RefCoco(Folder(str(root)), split))
        images = {f"COCO_train2014_{ref['image_id']:012}" for ref in refs if ref["split"] == split}
        assert [record.video for record in found] == sorted(images)
        for record in found:
            assert record.frames == ((root / "train2014" / f"{record.video}.jpg").read_bytes(),)
            assert (record.dataset, record.split, record.frame_names) == ("refcoco", split, (record.video,))


def test_records_survive_parquet_but_for_the_precision_of_boxes(data_kit: Path) -> None:
    for record in records(RefCoco(Folder(str(data_kit / "refcoco")), "val")):
        (back,) = records_of(table_of([record]))
        assert back.expressions == record.expressions
        assert [track.rle for track in back.objects] == [track.rle for track in record.objects]
        for track, other in zip(back.objects, record.objects, strict=True):
            assert track.boxes is not None
            assert other.boxes is not None
            assert track.boxes[0] == pytest.approx(other.boxes[0], rel=1e-6)


def test_fingerprints_tell_what_a_record_was_made_from(root: Path) -> None:
    before = [record.source_fingerprint for record in records(train(root))]
    assert before == [record.source_fingerprint for record in records(train(root))]
    change_instances(root, lambda coco: annotation(coco, 36154).update(bbox=[1, 2, 3, 4]))
    after = [record.source_fingerprint for record in records(train(root))]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_crowds_and_boxes_without_area_stay_for_training_to_leave_out(root: Path) -> None:
    crowd = {"iscrowd": 1, "segmentation": {"size": [480, 640], "counts": [480, 960, 480 * 637]}}
    change_instances(root, lambda coco: annotation(coco, 36154).update(crowd))
    change_instances(root, lambda coco: annotation(coco, 42791).update(bbox=[639, 3, 0, 5]))
    (reading,) = [train(root).read(item) for item in train(root).items() if item.video.endswith("41888")]
    tracks = {track.id: track for track in reading.record.objects}
    assert tracks[36154].iscrowd
    assert rle_to_mask(tracks[36154].rle[0] or "", (480, 640))[:, 1:3].all()
    assert tracks[42791].boxes == ((639, 3, 639, 8),)
    assert len(reading.record.expressions) == 6
    assert not reading.dropped


def test_an_empty_sentence_is_dropped_in_the_open_and_keeps_its_number(root: Path) -> None:
    change_refs(root, lambda refs: refs[0]["sentences"][0].update(sent=" "))
    (reading,) = [train(root).read(item) for item in train(root).items() if item.video.endswith("41888")]
    assert reading.dropped == (Dropped(reading.record.video, "empty expression", "expression 1, annotation 36154"),)
    assert [one.external_id for one in reading.record.expressions] == ["2", "3", "4", "5", "6"]


def test_sentences_on_an_object_without_pixels_are_kept_but_not_learned_from(root: Path) -> None:
    nothing = {"size": [480, 640], "counts": [480 * 640]}
    change_instances(root, lambda coco: annotation(coco, 42791).update(segmentation=nothing))
    (reading,) = [train(root).read(item) for item in train(root).items() if item.video.endswith("41888")]
    assert not reading.dropped
    assert [one.external_id for one in reading.record.expressions] == ["1", "2", "3", "4", "5", "6"]
    assert row_info(reading.record).untrainable == {2: NO_PIXELS, 3: NO_PIXELS}


def test_a_missing_image_is_quarantined_with_its_path(root: Path) -> None:
    path = root / "train2014" / "COCO_train2014_000000041888.jpg"
    path.unlink()
    bad = only_bad(root)
    assert (bad.video, bad.stage) == ("COCO_train2014_000000041888", "read")
    assert str(path) in bad.reason


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"no image", "no image"), (None, "cut short")])
def test_a_damaged_image_is_quarantined(root: Path, data: bytes | None, reason: str) -> None:
    path = root / "train2014" / "COCO_train2014_000000041888.jpg"
    path.write_bytes(path.read_bytes()[:20_000] if data is None else data)
    bad = only_bad(root)
    assert bad.stage == "decode"
    assert str(path) in bad.reason
    assert reason in bad.reason


def test_an_image_of_another_size_than_its_masks_is_quarantined(root: Path) -> None:
    Image.new("RGB", (64, 48)).save(root / "train2014" / "COCO_train2014_000000041888.jpg")
    assert "has size (64, 48), but" in (reason := only_bad(root).reason)
    assert "instances.json says (640, 480)" in reason


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "C:\\secret.jpg", ""])
def test_an_image_name_that_leaves_the_folder_is_quarantined(root: Path, name: str) -> None:
    change_instances(root, lambda coco: coco["images"][0].update(file_name=name))
    bad = only_bad(root)
    assert bad.stage == "list"
    assert f"The name {name!r} would leave its folder" in bad.reason
    assert str(root / "refcoco" / "instances.json") in bad.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.pop("segmentation"), "it has no segmentation"),
        (lambda one: one.pop("bbox"), "it has no bbox"),
        (lambda one: one.update(bbox=[1, 2, 3]), "its bbox is"),
        (lambda one: one.update(area="much"), "its area is 'much'"),
        (lambda one: one.update(segmentation=[]), "empty list"),
        (lambda one: one.update(segmentation={"size": [2, 2], "counts": [4]}), "its RLE has size"),
        (lambda one: one.update(image_id=7), "is not of image 41888"),
        (lambda one: one.update(id=7), "does not describe annotation 36154"),
    ],
)
def test_an_unusable_annotation_quarantines_its_image_alone(
    root: Path, change: Callable[[Any], object], reason: str
) -> None:
    change_instances(root, lambda coco: change(annotation(coco, 36154)))
    bad = only_bad(root)
    assert (bad.video, bad.stage) == ("COCO_train2014_000000041888", "list")
    assert reason in bad.reason
    assert str(root / "refcoco" / "instances.json") in bad.reason


def test_an_image_that_is_not_described_is_quarantined(root: Path) -> None:
    change_instances(root, lambda coco: coco["images"].pop(0))
    bad = only_bad(root)
    assert bad.video == "image 41888"
    assert "does not describe image 41888" in bad.reason


def test_the_folder_of_another_dataset_says_what_is_expected_and_found(root: Path) -> None:
    with pytest.raises(
        LayoutError, match=r"Neither .*/refcoco\+/refs\(unc\)\.p .*in it are \['refcoco', 'train2014'\]"
    ):
        RefCoco(Folder(str(root)), "train", "refcoco+").items()


def test_missing_images_are_one_error(root: Path) -> None:
    shutil.rmtree(root / "train2014")
    with pytest.raises(LayoutError, match=r"/train2014 does not exist\. Unpack"):
        train(root).items()


def test_wrong_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match=r"refcocog has no split 'testA'.*train, val, test"):
        RefCoco(Folder("x"), "testA", "refcocog")
    with pytest.raises(ValueError, match=r"no RefCOCO set 'coco'.*refcoco, refcoco\+, refcocog"):
        RefCoco(Folder("x"), "train", "coco")
