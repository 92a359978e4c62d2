import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.records import Record
from pipelines.sources.base import Item, Reading
from pipelines.sources.davis import RefDavis17
from sgmg.masks import rle_union, rles_to_masks

TEXTS = ("Davis17_annot1", "Davis17_annot1_full_video", "Davis17_annot2", "Davis17_annot2_full_video")


def source(root: Path, split: str = "valid") -> RefDavis17:
    return RefDavis17(Folder(str(root)), split)


def records(root: Path, split: str) -> list[Record]:
    davis = source(root, split)
    return [davis.read(pickle.loads(pickle.dumps(item))).record for item in davis.items()]


def item(root: Path, video: str, split: str = "valid") -> Item:
    return next(found for found in source(root, split).items() if found.video == video)


def read(root: Path, video: str, split: str = "valid") -> Reading:
    return source(root, split).read(item(root, video, split))


def check_frames_and_masks(record: Record, frames: Path, masks: Path) -> None:
    assert record.frames == tuple((frames / f"{name}.jpg").read_bytes() for name in record.frame_names)
    maps = np.stack([object_map((masks / f"{name}.png").read_bytes()) for name in record.frame_names])
    assert [track.id for track in record.objects] == [number for number in np.unique(maps) if number]
    for track in record.objects:
        rles = [rle for rle in track.rle if rle is not None]
        np.testing.assert_array_equal(rles_to_masks(rles, (record.height, record.width)), maps == track.id)


@pytest.fixture
def raw(data_kit: Path, tmp_path: Path) -> Path:
    root = tmp_path / "refdavis_raw"
    shutil.copytree(data_kit / "refdavis_raw", root, copy_function=shutil.copyfile)
    for folder in [root, *root.rglob("*/")]:
        folder.chmod(0o755)
    return root


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """Two videos of one 4x3 frame in the converted layout; the second is whole."""
    root = tmp_path / "refdavis"
    said = {str(k): {"exp": f"text {k}", "obj_id": "1"} for k in range(4)}
    videos: dict[str, Any] = {name: {"expressions": said, "frames": ["00000"]} for name in ("a", "whole")}
    for name in videos:
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (root / "train" / kind / name).mkdir(parents=True)
            Image.new("L", (4, 3), 1).save(root / "train" / kind / name / f"00000.{suffix}")
    write_meta(root, videos)
    return root


def write_meta(root: Path, videos: dict[str, Any]) -> None:
    path = root / "meta_expressions" / "train" / "meta_expressions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))


def meta_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta_expressions" / "train" / "meta_expressions.json").read_text())["videos"]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_raw_files_give_what_the_official_converter_writes(data_kit: Path, split: str) -> None:
    expected = data_kit / "refdavis_raw_expected"
    expressions, meta = {}, {}
    for record in records(data_kit / "refdavis_raw", split):
        said = {one.id: {"exp": one.text, "obj_id": str(one.targets[0])} for one in record.expressions}
        expressions[record.video] = {"expressions": said, "frames": list(record.frame_names)}
        meta[record.video] = {"objects": {str(track.id): {"category": track.category} for track in record.objects}}
    written = (expected / "meta_expressions" / split / "meta_expressions.json").read_text()
    assert json.dumps({"videos": expressions}) == json.dumps(json.loads(written))
    assert {"videos": meta} == json.loads((expected / split / "meta.json").read_text())


@pytest.mark.parametrize("split", ["train", "valid"])
def test_raw_frames_and_masks_are_those_of_the_files(data_kit: Path, split: str) -> None:
    home = data_kit / "refdavis_raw" / "DAVIS"
    for record in records(data_kit / "refdavis_raw", split):
        masks = home / "Annotations_unsupervised" / "480p" / record.video
        check_frames_and_masks(record, home / "JPEGImages" / "480p" / record.video, masks)
        assert len(record.frames) == len(list(masks.iterdir()))


@pytest.mark.parametrize(("split", "images"), [("train", "JPEGImages"), ("valid", "JPEGImages/480p")])
def test_a_converted_record_is_what_the_files_say(data_kit: Path, split: str, images: str) -> None:
    root = data_kit / "refdavis"
    meta = json.loads((root / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
    found = records(root, split)
    assert [record.video for record in found] == sorted(meta)
    for record in found:
        said = meta[record.video]
        assert (record.dataset, record.split, list(record.frame_names)) == ("ref-davis17", split, said["frames"])
        assert {one.id: {"exp": one.text, "obj_id": str(one.targets[0])} for one in record.expressions} == said[
            "expressions"
        ]
        assert [one.annotator for one in record.expressions] == [0, 1, 2, 3] * len(record.objects)
        check_frames_and_masks(
            record, root / split / images / record.video, root / split / "Annotations" / record.video
        )


def test_what_is_in_davis_may_lie_beside_the_texts(raw: Path) -> None:
    before = records(raw, "train")
    for path in (raw / "DAVIS").iterdir():
        path.rename(raw / path.name)
    (raw / "DAVIS").rmdir()
    (after,) = records(raw, "train")
    assert (after.frames, after.objects, after.expressions) == (
        before[0].frames,
        before[0].objects,
        before[0].expressions,
    )


def test_misspelt_videos_find_their_texts(raw: Path) -> None:
    home = raw / "DAVIS"
    for kind in ("JPEGImages", "Annotations_unsupervised"):
        shutil.move(home / kind / "480p" / "car-shadow", home / kind / "480p" / "classic-car")
    (home / "ImageSets" / "2017" / "train.txt").write_text("classic-car\n")
    (home / "davis_semantics.json").write_text('{"classic-car": {"1": "car"}}')
    assert read(raw, "classic-car", "train").record.expressions[0].text == "a vintage car on the road"


def test_objects_go_by_their_number_as_a_string(raw: Path) -> None:
    """Ten comes before two, so its four expressions are numbers 4 to 7."""
    home = raw / "DAVIS"
    (home / "davis_semantics.json").write_text('{"car-shadow": {"1": "car", "2": "car", "10": "car"}}')
    for path in (home / "Annotations_unsupervised" / "480p" / "car-shadow").iterdir():
        Image.fromarray(np.resize(np.array([1, 2, 10], np.uint8), (240, 428))).save(path)
    for name in TEXTS:
        lines = [f'car-shadow {number}  "number   {number}"' for number in (1, 2, 10)]
        (raw / "davis_text_annotations" / f"{name}.txt").write_text("\n".join(lines))
    expressions = read(raw, "car-shadow", "train").record.expressions
    assert [(one.id, one.object_ids, one.text) for one in expressions[4:9:4]] == [
        ("4", (10,), "number 10"),
        ("8", (2,), "number 2"),
    ]


def test_void_pixels_are_no_object(raw: Path) -> None:
    mask = raw / "DAVIS" / "Annotations_unsupervised" / "480p" / "car-shadow" / "00000.png"
    Image.fromarray(np.resize(np.array([1, 255], np.uint8), (240, 428))).save(mask)
    assert [track.id for track in read(raw, "car-shadow", "train").record.objects] == [1]


def test_an_empty_expression_is_dropped_and_the_others_keep_their_numbers(raw: Path) -> None:
    path = raw / "davis_text_annotations" / "Davis17_annot1_full_video.txt"
    path.write_text(path.read_text().replace("a white car crossing a signal", " "))
    reading = read(raw, "car-shadow", "train")
    assert [(one.id, one.annotator) for one in reading.record.expressions] == [("0", 0), ("2", 2), ("3", 3)]
    assert [(one.reason, one.what) for one in reading.dropped] == [("empty expression", "expression 1, of object 1")]


def test_an_object_without_pixels_is_kept_with_empty_masks(raw: Path) -> None:
    for path in (raw / "DAVIS" / "Annotations_unsupervised" / "480p" / "car-shadow").iterdir():
        Image.new("L", (428, 240)).save(path)
    reading = read(raw, "car-shadow", "train")
    assert [one.object_ids for one in reading.record.expressions] == [(1,)] * 4
    assert [set(track.rle) for track in reading.record.objects] == [{rle_union([], (240, 428))}]
    assert reading.dropped == ()


def test_an_object_that_the_semantics_do_not_name_is_refused(raw: Path) -> None:
    (raw / "DAVIS" / "davis_semantics.json").write_text('{"bmx-trees": {"1": "bicycle"}}')
    with pytest.raises(BadItem, match=r"davis_semantics\.json does not name object 2, of which texts speak"):
        read(raw, "bmx-trees")


def test_a_video_with_a_text_missing_is_refused_and_the_others_are_not(raw: Path) -> None:
    path = raw / "davis_text_annotations" / "Davis17_annot2.txt"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"bmx-trees 2")))
    with pytest.raises(BadItem, match=r"one text for every object.*Davis17_annot2\.txt \['1'\]"):
        read(raw, "bmx-trees")
    assert len(read(raw, "horsejump-high").record.expressions) == 8


def test_latin_1_where_utf_8_belongs_names_file_and_line(raw: Path) -> None:
    path = raw / "davis_text_annotations" / "Davis17_annot1.txt"
    path.write_bytes(path.read_bytes().replace(b"a boy", b"un gar\xe7on"))
    with pytest.raises(LayoutError, match=r"Davis17_annot1\.txt, line 3: byte 0xe7 is not utf-8.*Save the file"):
        source(raw).items()


def test_a_line_that_is_no_text_names_file_and_line(raw: Path) -> None:
    path = raw / "davis_text_annotations" / "Davis17_annot1.txt"
    path.write_text('blackswan one "a swan"\n')
    with pytest.raises(LayoutError, match=r"Davis17_annot1\.txt, line 1: .*Mend the line"):
        source(raw).items()


@pytest.mark.parametrize(
    "name", ["DAVIS/davis_semantics.json", "DAVIS/ImageSets/2017/val.txt", "davis_text_annotations/Davis17_annot2.txt"]
)
def test_a_missing_annotation_file_is_named(raw: Path, name: str) -> None:
    (raw / name).unlink()
    with pytest.raises(LayoutError, match=rf"{raw / name} does not exist.*Point --raw"):
        source(raw).items()


def test_a_damaged_json_is_named(raw: Path) -> None:
    (raw / "DAVIS" / "davis_semantics.json").write_text("{")
    with pytest.raises(LayoutError, match=r"davis_semantics\.json is no JSON"):
        source(raw).items()


@pytest.mark.parametrize("kind", ["JPEGImages", "Annotations_unsupervised"])
def test_a_truncated_image_is_named(raw: Path, kind: str) -> None:
    path = next((raw / "DAVIS" / kind / "480p" / "car-shadow").glob("00002.*"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadItem, match=rf"{path}: the image is damaged or cut short"):
        read(raw, "car-shadow", "train")


def test_a_missing_mask_is_named(raw: Path) -> None:
    path = raw / "DAVIS" / "Annotations_unsupervised" / "480p" / "car-shadow" / "00002.png"
    path.unlink()
    with pytest.raises(BadItem, match=rf"{path} does not exist"):
        read(raw, "car-shadow", "train")


def test_a_mask_of_another_size_is_named(raw: Path) -> None:
    path = raw / "DAVIS" / "Annotations_unsupervised" / "480p" / "car-shadow" / "00002.png"
    Image.new("L", (8, 8), 1).save(path)
    with pytest.raises(BadItem, match=rf"{path}: the mask has height, width \(8, 8\), not \(240, 428\)"):
        read(raw, "car-shadow", "train")


def test_a_video_without_frames_is_refused(raw: Path) -> None:
    shutil.rmtree(raw / "DAVIS" / "JPEGImages" / "480p" / "car-shadow")
    with pytest.raises(BadItem, match=r"no frame is listed or found in .*car-shadow"):
        read(raw, "car-shadow", "train")


def test_frames_of_a_folder_go_by_their_numbers_and_hidden_files_are_none(raw: Path) -> None:
    expected = read(raw, "car-shadow", "train").record
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations_unsupervised", ".png")):
        images = raw / "DAVIS" / folder / "480p" / "car-shadow"
        for number, name in enumerate(expected.frame_names, start=8):
            (images / f"{name}{suffix}").rename(images / f"f{number}{suffix}")
        (images / f"._f8{suffix}").write_bytes(b"macOS")
    record = read(raw, "car-shadow", "train").record
    assert record.frame_names == tuple(f"f{number}" for number in range(8, 8 + len(expected.frames)))
    assert (record.frames, record.objects) == (expected.frames, expected.objects)


def test_frames_of_several_sizes_are_refused(raw: Path) -> None:
    path = raw / "DAVIS" / "JPEGImages" / "480p" / "car-shadow" / "00002.jpg"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(BadItem, match=rf"{path} has size \(8, 8\), the frames before it \(428, 240\)"):
        read(raw, "car-shadow", "train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"frames": ["00000"]}, r"missing or wrong \(KeyError\('expressions'\)"),
        ({"expressions": {"0": {"exp": "a"}}, "frames": ["00000"]}, r"KeyError\('obj_id'\)"),
        ({"expressions": {"0": {"exp": "a", "obj_id": "1"}}, "frames": ["00000"]}, "has 1 texts, not 4 an object"),
        ({"expressions": {}, "frames": []}, "lists no frame"),
        ({"expressions": {}, "frames": ["../../secret"]}, "would leave its folder"),
    ],
)
def test_a_bad_entry_of_the_json_costs_only_its_video(converted: Path, entry: dict[str, Any], message: str) -> None:
    write_meta(converted, meta_of(converted) | {"a": entry})
    with pytest.raises(BadItem, match=message):
        read(converted, "a", "train")
    assert len(read(converted, "whole", "train").record.expressions) == 4


def test_an_object_that_meta_json_does_not_name_is_refused(converted: Path) -> None:
    (converted / "train" / "meta.json").write_text('{"videos": {"a": {"objects": {}}}}')
    with pytest.raises(BadItem, match=r"meta\.json does not name object 1"):
        read(converted, "a", "train")


def test_a_video_that_would_leave_its_folder_is_refused(converted: Path) -> None:
    write_meta(converted, {"../whole": meta_of(converted)["whole"]})
    with pytest.raises(BadItem, match="would leave its folder"):
        read(converted, "../whole", "train")


def test_json_without_videos_is_another_dataset(converted: Path) -> None:
    (converted / "meta_expressions" / "train" / "meta_expressions.json").write_text("[]")
    with pytest.raises(LayoutError, match=r'meta_expressions\.json has no key "videos"'):
        source(converted, "train").items()


def test_a_wrong_split_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no split 'val'\. Choose one of: train, valid"):
        source(tmp_path, "val")


def test_the_folder_of_another_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"neither davis_text_annotations/.*check --dataset"):
        source(tmp_path).items()
