import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.manifest import NO_PIXELS, NO_TARGET, WITHHELD
from pipelines.prepare.row_info import row_info
from pipelines.scoring.truth import truth_of
from pipelines.sources.base import Reading, Source
from pipelines.sources.mask_dict import MaskDict
from pipelines.sources.names import DatasetName
from sgmg.masks import masks_to_rles, rle_to_coco, rle_to_mask, rle_union

VIDEO = "31f1e819d1"
SIZE = (240, 428)
GONE = "truth of an expression, as one of its objects has no masks"


def source(root: Path, split: str = "train", dataset: DatasetName = "mevis") -> MaskDict:
    return MaskDict(Folder(str(root)), split, dataset)


def object_maps(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


@pytest.fixture
def mevis(data_kit: Path, tmp_path: Path) -> Path:
    """The MeViS layout from frames and masks of Ref-YouTube-VOS: objects 1 2 3 are filed under 10 11 12."""
    kit = data_kit / "refytvos/train"
    maps = object_maps(kit / "Annotations" / VIDEO)
    frames = sorted(path.stem for path in (kit / "JPEGImages" / VIDEO).iterdir())
    masks: dict[str, list[Any]] = {}
    for place in range(3):
        rles = masks_to_rles(maps == place + 1)
        masks[str(10 + place)] = [rle_to_coco(rle, SIZE) for rle in rles]
    masks["11"][3] = None
    expressions = {
        "0": {"exp": "the cart rolling down", "obj_id": [0], "anno_id": [10]},
        "1": {"exp": "The men in and behind the cart", "obj_id": [1, 2], "anno_id": [11, 12]},
    }
    for split, truth in (("train", True), ("valid_u", True), ("valid", False)):
        (tmp_path / split / "JPEGImages").mkdir(parents=True)
        shutil.copytree(kit / "JPEGImages" / VIDEO, tmp_path / split / "JPEGImages" / VIDEO)
        said = expressions if truth else {id: {"exp": entry["exp"]} for id, entry in expressions.items()}
        videos = {VIDEO: {"vid_id": 0, "frames": frames, "expressions": said}}
        (tmp_path / split / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
        if truth:
            (tmp_path / split / "mask_dict.json").write_text(json.dumps(masks))
    return tmp_path


def read_only_one(root: Path, split: str = "train", dataset: DatasetName = "mevis") -> Reading:
    opened: Source = source(root, split, dataset)
    (item,) = opened.items()
    return opened.read(item)


def change(root: Path, name: str, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((root / "train" / name).read_text())
    how(content)
    (root / "train" / name).write_text(json.dumps(content))


def change_video(root: Path, how: Callable[[dict[str, Any]], object]) -> None:
    change(root, "meta_expressions.json", lambda content: how(content["videos"][VIDEO]))


@pytest.mark.parametrize("split", ["train", "valid_u", "valid"])
def test_every_frame_keeps_its_bytes_and_every_sentence_its_words(mevis: Path, split: str) -> None:
    record = read_only_one(mevis, split).record
    folder = mevis / split / "JPEGImages" / VIDEO
    assert record.frames == tuple((folder / f"{name}.jpg").read_bytes() for name in record.frame_names)
    assert (record.dataset, record.split, record.height, record.width) == ("mevis", split, *SIZE)
    assert [said.text for said in record.expressions] == ["the cart rolling down", "The men in and behind the cart"]


def test_every_mask_is_the_annotation_and_null_says_absent(mevis: Path, data_kit: Path) -> None:
    maps = object_maps(data_kit / "refytvos/train/Annotations" / VIDEO)
    maps[3][maps[3] == 2] = 0
    reading = read_only_one(mevis)
    assert [track.id for track in reading.record.objects] == [10, 11, 12]
    for track in reading.record.objects:
        masks = np.stack([rle_to_mask(str(rle), SIZE) for rle in track.rle])
        np.testing.assert_array_equal(masks, maps == track.id - 9)
    assert not reading.dropped


def test_a_sentence_on_several_objects_speaks_of_their_union(mevis: Path, data_kit: Path) -> None:
    maps = object_maps(data_kit / "refytvos/train/Annotations" / VIDEO)
    record = read_only_one(mevis, "valid_u").record
    assert [said.object_ids for said in record.expressions] == [(10,), (11, 12)]
    rles = [str(track.rle[0]) for track in record.objects if track.id in record.expressions[1].targets]
    np.testing.assert_array_equal(rle_to_mask(rle_union(rles, SIZE), SIZE), np.isin(maps[0], (2, 3)))


def test_valid_has_no_objects(mevis: Path) -> None:
    record = read_only_one(mevis, "valid").record
    assert record.objects == ()
    assert [said.object_ids for said in record.expressions] == [None, None]


def test_the_listed_order_is_that_of_frames_and_masks(mevis: Path) -> None:
    expected = read_only_one(mevis).record
    change_video(mevis, lambda video: video["frames"].reverse())
    change(mevis, "mask_dict.json", lambda masks: [track.reverse() for track in masks.values()])
    found = read_only_one(mevis).record
    assert (found.frame_names, found.frames) == (expected.frame_names[::-1], expected.frames[::-1])
    assert [track.rle for track in found.objects] == [track.rle[::-1] for track in expected.objects]


def test_items_and_the_source_travel_to_workers(mevis: Path) -> None:
    (item,) = source(mevis).items()
    away, carried = pickle.loads(pickle.dumps((source(mevis), item)))
    assert away.read(carried) == source(mevis).read(item)
    assert json.loads(json.dumps(item.key)) == item.key


def test_another_split_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"mevis has no split 'test'.*train, valid_u, valid"):
        source(tmp_path, "test")


def test_another_dataset_is_told_at_once(data_kit: Path) -> None:
    with pytest.raises(LayoutError, match=r"refytvos/train/meta_expressions.json does not exist.*--dataset"):
        source(data_kit / "refytvos").items()


def test_a_missing_or_truncated_file_of_masks_stops_everything(mevis: Path) -> None:
    path = mevis / "train/mask_dict.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(LayoutError, match=f"{path} is no JSON"):
        source(mevis).items()
    path.unlink()
    with pytest.raises(LayoutError, match=f"{path} does not exist"):
        source(mevis).items()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda masks: masks["11"].pop(), "object '11' has 11 masks for 12 frames"),
        (lambda masks: masks.update({"11": "?"}), "object '11' has a str for 12 frames"),
        (
            lambda masks: masks["11"][2].update(size=[428, 240]),
            r"frame 00010: the mask is of height, width \[428, 240\]",
        ),
        (lambda masks: masks["11"][2].update(counts="0"), "frame 00010: RLE '0' holds"),
        (lambda masks: masks["11"][2].pop("counts"), "frame 00010: 'counts' should be a str, but is missing"),
    ],
)
def test_masks_that_do_not_fit_their_frames_send_the_video_to_quarantine(
    mevis: Path, how: Callable[[dict[str, Any]], object], message: str
) -> None:
    change(mevis, "mask_dict.json", how)
    with pytest.raises(BadItem, match=message) as problem:
        read_only_one(mevis)
    assert f"{mevis}/train/mask_dict.json" in problem.value.reason


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda video: video["expressions"]["0"].pop("anno_id"), "'anno_id' should be a list, but is missing"),
        (lambda video: video["expressions"]["0"].update(anno_id=["x"]), "'anno_id' should be whole numbers from 0"),
        (lambda video: video["expressions"]["0"].pop("exp"), "'exp' should be a str, but is missing"),
        (lambda video: video.update(frames=[]), "lists no frames"),
        (lambda video: video.update(expressions=[]), "'expressions' should be a dict"),
    ],
)
def test_a_video_that_is_listed_wrongly_is_quarantined(
    mevis: Path, how: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_video(mevis, how)
    with pytest.raises(BadItem, match=f"{mevis}/train/meta_expressions.json.*{message}"):
        read_only_one(mevis)


def test_an_object_without_pixels_and_no_object_at_all_are_a_truth(mevis: Path) -> None:
    change_video(mevis, lambda video: video["expressions"].update({"2": {"exp": "none", "obj_id": [], "anno_id": []}}))
    change(mevis, "mask_dict.json", lambda masks: masks.update({"10": [None] * 12}))
    reading = read_only_one(mevis)
    assert reading.dropped == ()
    assert {said.id: said.object_ids for said in reading.record.expressions} == {"0": (10,), "1": (11, 12), "2": ()}
    truth = truth_of(reading.record)
    empty = rle_union([], SIZE)
    for said in (truth.expressions[0], truth.expressions[2]):
        assert [truth.rle(said, frame) for frame in truth.scored_frames(said)] == [empty] * 12
    assert row_info(reading.record).untrainable == {0: NO_PIXELS, 2: NO_TARGET}


def test_sentences_of_objects_without_masks_have_no_truth_but_are_kept(mevis: Path) -> None:
    change(mevis, "mask_dict.json", lambda masks: masks.pop("12"))
    reading = read_only_one(mevis)
    assert reading.dropped == (
        Dropped(VIDEO, "object not in mask_dict.json, or twice", "object 12"),
        Dropped(VIDEO, GONE, "expression 1, of objects [11, 12]: The men in and behind the cart"),
    )
    assert [track.id for track in reading.record.objects] == [10, 11]
    assert {said.id: said.object_ids for said in reading.record.expressions} == {"0": (10,), "1": None}
    assert row_info(reading.record).untrainable == {1: WITHHELD}
    assert [said.id for said in truth_of(reading.record).labelled_expressions] == ["0"]


@pytest.mark.parametrize("name", ["meta_expressions_v2", "meta_expressions_v2_release", "meta_expressions_release"])
def test_the_second_version_has_files_of_other_names(mevis: Path, name: str) -> None:
    for split in ("train", "valid"):
        (mevis / split / "meta_expressions.json").rename(mevis / split / f"{name}.json")
    (mevis / "valid" / "mask_dict.json").write_text("{}")  # as some copies have it: no truth
    first, second = read_only_one(mevis, "train", "mevis-v2").record, read_only_one(mevis, "valid", "mevis-v2").record
    assert [said.object_ids for said in first.expressions] == [(10,), (11, 12)]
    assert [said.object_ids for said in second.expressions] == [None, None]
    assert first.dataset == "mevis-v2"


@pytest.mark.parametrize("images", ["JPEGImages", ""])
def test_revos_has_its_files_at_the_top_and_kinds_of_sentences(mevis: Path, tmp_path: Path, images: str) -> None:
    root = tmp_path / "revos"
    kinds = {"0": 0, "1": 1}
    change_video(mevis, lambda video: [one.update(type_id=kinds[id]) for id, one in video["expressions"].items()])
    shutil.copytree(mevis / "train" / "JPEGImages", root / images, dirs_exist_ok=True)
    shutil.copy(mevis / "train" / "mask_dict.json", root)
    shutil.copy(mevis / "train" / "meta_expressions.json", root / "meta_expressions_valid_.json")
    record = read_only_one(root, "valid", "revos").record
    assert [said.kind for said in record.expressions] == ["referring", "reasoning"]
    assert len(record.frames) == 12
    with pytest.raises(LayoutError, match="revos has no split 'test'"):
        source(root, "test", "revos")


@pytest.mark.parametrize(("type_id", "kind"), [("1", "reasoning"), (2, "other"), (None, ""), (3, None), ("x", None)])
def test_a_kind_of_sentence_is_a_number_that_revos_knows(
    mevis: Path, tmp_path: Path, type_id: int | str | None, kind: str | None
) -> None:
    change_video(mevis, lambda video: [one.update(type_id=type_id) for one in video["expressions"].values()])
    shutil.copytree(mevis / "train" / "JPEGImages", tmp_path / "revos")
    shutil.copy(mevis / "train" / "mask_dict.json", tmp_path / "revos")
    shutil.copy(mevis / "train" / "meta_expressions.json", tmp_path / "revos/meta_expressions_valid_.json")
    if kind is None:
        with pytest.raises(BadItem, match=f"'type_id' should be one of 0, 1, 2, but is {type_id!r}"):
            read_only_one(tmp_path / "revos", "valid", "revos")
    else:
        record = read_only_one(tmp_path / "revos", "valid", "revos").record
        assert {said.kind for said in record.expressions} == {kind}


def test_ref_sav_has_its_videos_in_a_folder_of_that_name(mevis: Path, tmp_path: Path) -> None:
    root = tmp_path / "ref_sav_eval"
    change_video(mevis, lambda video: [one.update(type_id=1) for one in video["expressions"].values()])
    shutil.copytree(mevis / "train" / "JPEGImages", root / "videos")
    shutil.copy(mevis / "train" / "mask_dict.json", root)
    shutil.copy(mevis / "train" / "meta_expressions.json", root / "meta_expressions_valid.json")
    record = read_only_one(root, "valid", "ref-sav").record
    assert [said.kind for said in record.expressions] == ["short", "short"]
    assert record.source == f"videos/{VIDEO}"


def test_a_name_of_a_video_may_have_a_folder(mevis: Path) -> None:
    file = mevis / "train/meta_expressions.json"
    videos = json.loads(file.read_text())["videos"]
    file.write_text(json.dumps({"videos": {f"a/{VIDEO}": videos[VIDEO]}}))
    (mevis / "train/JPEGImages/a").mkdir()
    (mevis / "train/JPEGImages" / VIDEO).rename(mevis / "train/JPEGImages/a" / VIDEO)
    assert read_only_one(mevis).record.video == f"a/{VIDEO}"


def test_an_empty_expression_is_dropped_and_counted(mevis: Path) -> None:
    change_video(mevis, lambda video: video["expressions"]["0"].update(exp=""))
    assert read_only_one(mevis).dropped == (Dropped(VIDEO, "empty expression", "expression 0"),)
