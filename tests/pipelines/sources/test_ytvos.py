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
from pipelines.manifest import NO_PIXELS
from pipelines.prepare.row_info import row_info
from pipelines.records import Record, table_of
from pipelines.records import records_of as records_of_table
from pipelines.scoring.truth import truth_of
from pipelines.scoring.truth_parts import read_truths
from pipelines.sources.base import Item, Reading, Source
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.masks import rle_to_mask, rle_union, rles_to_masks

SPLITS = ("train", "valid", "test")
VIDEO = "31f1e819d1"  # three objects, twelve frames
TRAIN = "meta_expressions/train/meta_expressions.json"


def meta(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]


def change_meta(root: Path, change: Callable[[dict[str, Any]], object], name: str = TRAIN) -> None:
    content = json.loads((root / name).read_text())
    change(content["videos"])
    (root / name).write_text(json.dumps(content))


def source(root: Path, split: str = "train") -> RefYouTubeVOS:
    return RefYouTubeVOS(Folder(str(root)), split)


def read_only_one(root: Path) -> Reading:
    (item,) = source(root).items()
    return source(root).read(item)


@pytest.fixture
def one_video(data_kit: Path, tmp_path: Path) -> Path:
    """A folder with one video of train, to be spoilt."""
    kit = data_kit / "refytvos"
    for folder in ("train/JPEGImages", "train/Annotations"):
        shutil.copytree(kit / folder / VIDEO, tmp_path / folder / VIDEO)
    (tmp_path / TRAIN).parent.mkdir(parents=True)
    for name in (TRAIN, "train/meta.json"):
        videos = json.loads((kit / name).read_text())["videos"]
        (tmp_path / name).write_text(json.dumps({"videos": {VIDEO: videos[VIDEO]}}))
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_every_frame_keeps_its_bytes_and_every_sentence_its_words(data_kit: Path, split: str) -> None:
    root = data_kit / "refytvos"
    listed = meta(root, split)
    dataset: Source = source(root, split)
    for item in dataset.items():
        record = dataset.read(item).record
        assert (record.dataset, record.split, record.video) == ("ref-youtube-vos", split, item.video)
        assert record.frame_names == tuple(listed[item.video]["frames"])
        folder = root / split / "JPEGImages" / item.video
        assert record.frames == tuple((folder / f"{name}.jpg").read_bytes() for name in record.frame_names)
        with Image.open(folder / f"{record.frame_names[0]}.jpg") as image:
            assert (record.width, record.height) == image.size == (record.original_width, record.original_height)
        said = {expression.id: expression.text for expression in record.expressions}
        assert said == {id: entry["exp"] for id, entry in listed[item.video]["expressions"].items()}
        assert records_of_table(table_of([record])) == [record]


def test_the_listed_order_is_the_order_of_the_frames(one_video: Path) -> None:
    expected = read_only_one(one_video).record
    names = [str(number) for number in range(12)]  # no zeros before them: as text, 10 would follow 1
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".png")):
        for old, new in zip(expected.frame_names, names, strict=True):
            path = one_video / "train" / folder / VIDEO / f"{old}{suffix}"
            path.rename(path.with_name(f"{new}{suffix}"))
    change_meta(one_video, lambda videos: videos[VIDEO].update(frames=names))
    record = read_only_one(one_video).record
    assert record.frame_names == tuple(names)
    assert (record.frames, record.objects) == (expected.frames, expected.objects)


def test_every_mask_is_the_annotation_pixel_by_pixel(data_kit: Path) -> None:
    root = data_kit / "refytvos"
    objects = json.loads((root / "train/meta.json").read_text())["videos"]
    for item in source(root).items():
        reading = source(root).read(item)
        record = reading.record
        pngs = [root / "train/Annotations" / item.video / f"{name}.png" for name in record.frame_names]
        maps = np.stack([np.asarray(Image.open(path)) for path in pngs])
        assert {str(track.id): track.category for track in record.objects} == {
            id: entry["category"] for id, entry in objects[item.video]["objects"].items()
        }
        for track in record.objects:
            rles = [rle for rle in track.rle if rle is not None]
            np.testing.assert_array_equal(rles_to_masks(rles, (record.height, record.width)), maps == track.id)
        assert not reading.dropped


def test_a_sentence_of_train_speaks_of_its_object(data_kit: Path) -> None:
    root = data_kit / "refytvos"
    for item in source(root).items():
        listed = meta(root, "train")[item.video]["expressions"]
        record = source(root).read(item).record
        assert {said.id: said.object_ids for said in record.expressions} == {
            id: (int(entry["obj_id"]),) for id, entry in listed.items()
        }


def test_valid_is_what_its_file_lists_and_test_does_not(data_kit: Path) -> None:
    root = data_kit / "refytvos"
    items = source(root, "valid").items()
    assert [item.video for item in items] == sorted(meta(root, "valid").keys() - meta(root, "test").keys())
    assert all(not source(root, "valid").read(item).record.objects for item in items)
    assert [item.video for item in source(root, "test").items()] == sorted(meta(root, "test"))
    assert [item.video for item in source(root).items()] == sorted(meta(root, "train"))


def test_without_the_file_of_test_valid_is_what_has_images(data_kit: Path, tmp_path: Path) -> None:
    root = data_kit / "refytvos"
    shutil.copytree(root / "meta_expressions/valid", tmp_path / "meta_expressions/valid")
    (tmp_path / "valid").symlink_to(root / "valid")
    assert [item.video for item in source(tmp_path, "valid").items()] == sorted(
        folder.name for folder in (root / "valid/JPEGImages").iterdir()
    )


def test_items_and_the_source_travel_to_workers(data_kit: Path) -> None:
    dataset = source(data_kit / "refytvos")
    item = dataset.items()[0]
    away, carried = pickle.loads(pickle.dumps((dataset, item)))
    assert away.read(carried) == dataset.read(item)


def test_the_fingerprint_follows_a_changed_mask_and_a_changed_sentence(one_video: Path) -> None:
    prints = [read_only_one(one_video).record.source_fingerprint]
    change_meta(one_video, lambda videos: videos[VIDEO]["expressions"]["0"].update(exp="another"))
    prints.append(read_only_one(one_video).record.source_fingerprint)
    png = one_video / "train/Annotations" / VIDEO / "00000.png"
    Image.fromarray(np.ones((240, 428), dtype=np.uint8)).save(png)
    prints.append(read_only_one(one_video).record.source_fingerprint)
    assert len(set(prints)) == 3


def test_another_split_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"ref-youtube-vos has no split 'val'.*train, valid, test"):
        source(tmp_path, "val")


def test_another_dataset_is_told_at_once(data_kit: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"a2d/meta_expressions/train/.* does not exist.*--dataset"):
        source(data_kit / "a2d").items()
    with pytest.raises(LayoutError, match=r"refdavis/valid/JPEGImages holds none of the \d+ videos.*--dataset"):
        source(data_kit / "refdavis", "valid").items()
    with pytest.raises(LayoutError, match=f"{tmp_path}/meta_expressions/test"):
        source(tmp_path, "test").items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"videos": {', "is no JSON"),
        ('{"videos": {"é": {}}}'.encode("latin-1"), "is not utf-8.*Save the file as UTF-8"),
        (b'{"video": {}}', 'has no object "videos"'),
        (b'{"videos": {}, "videos": {}}', "has it twice"),
        (b"[]", "holds a list"),
    ],
)
def test_a_file_of_sentences_that_is_none_stops_everything(one_video: Path, content: bytes, message: str) -> None:
    (one_video / TRAIN).write_bytes(content)
    with pytest.raises(LayoutError, match=f"{one_video}/{TRAIN}.*{message}"):
        source(one_video).items()


def test_train_needs_its_meta_file(one_video: Path) -> None:
    (one_video / "train/meta.json").unlink()
    with pytest.raises(LayoutError, match=f"{one_video}/train/meta.json does not exist"):
        source(one_video).items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(frames=[]), "lists no frames"),
        (lambda v: v.pop("frames"), "'frames' should be a list, but is missing"),
        (lambda v: v.update(frames=["00000", "00000"]), "each once"),
        (lambda v: v.update(frames=["../../secret"]), "would leave its folder"),
        (lambda v: v.update(frames=["/etc/passwd"]), "would leave its folder"),
        (lambda v: v.update(frames=["00001"]), "JPEGImages/31f1e819d1/00001.jpg does not exist"),
        (lambda v: v.update(expressions={}), "lists no expressions"),
        (lambda v: v.pop("expressions"), "'expressions' should be a dict, but is missing"),
        (lambda v: v["expressions"]["2"].pop("exp"), "expression '2': 'exp' should be a str, but is missing"),
        (lambda v: v["expressions"]["2"].pop("obj_id"), "expression '2': 'obj_id' should be a str, but is missing"),
        (lambda v: v["expressions"]["2"].update(obj_id="-1"), "object id '-1' is no number from 1"),
        (lambda v: v["expressions"].update({"3": "words"}), "expression '3' is no object, or occurs twice"),
    ],
)
def test_a_video_that_is_listed_wrongly_is_quarantined(
    one_video: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_meta(one_video, lambda videos: change(videos[VIDEO]))
    with pytest.raises(BadItem, match=message) as problem:
        read_only_one(one_video)
    assert problem.value.video == VIDEO
    assert str(one_video) in problem.value.reason or "leave" in message


def test_an_expression_id_that_occurs_twice_is_quarantined(one_video: Path) -> None:
    path = one_video / TRAIN
    path.write_text(path.read_text().replace('"1": {"exp"', '"0": {"exp"'))
    with pytest.raises(BadItem, match="expression '0' is no object, or occurs twice"):
        read_only_one(one_video)


def test_a_video_whose_name_leaves_the_folder_is_quarantined_and_the_rest_goes_on(one_video: Path) -> None:
    change_meta(one_video, lambda videos: videos.update({"../" + VIDEO: videos[VIDEO]}))
    bad, good = source(one_video).items()
    with pytest.raises(BadItem, match="would leave its folder"):
        source(one_video).read(bad)
    assert source(one_video).read(good).record.video == VIDEO


def test_a_video_name_may_start_with_a_dash(one_video: Path) -> None:
    for path in (one_video / "train/JPEGImages", one_video / "train/Annotations"):
        (path / VIDEO).rename(path / "-x")
    change_meta(one_video, lambda videos: videos.update({"-x": videos.pop(VIDEO)}))
    change_meta(one_video, lambda videos: videos.update({"-x": videos.pop(VIDEO)}), "train/meta.json")
    assert read_only_one(one_video).record.video == "-x"


def mask_of(root: Path) -> Path:
    return root / "train/Annotations" / VIDEO / "00010.png"


def spoil_frame(root: Path) -> None:
    path = root / "train/JPEGImages" / VIDEO / "00010.jpg"
    path.write_bytes(path.read_bytes()[:3000])


def spoil_frame_size(root: Path) -> None:
    Image.new("RGB", (428, 238)).save(root / "train/JPEGImages" / VIDEO / "00010.jpg")


def spoil_mask_size(root: Path) -> None:
    Image.new("L", (240, 428)).save(mask_of(root))


def spoil_mask_mode(root: Path) -> None:
    Image.new("RGB", (428, 240)).save(mask_of(root))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_frame, "00010.jpg: the image is damaged or cut short"),
        (spoil_frame_size, "00010.jpg has size .428, 238., the frames before it .428, 240."),
        (spoil_mask_size, "00010.png: the mask is 240x428, but its frame 428x240"),
        (spoil_mask_mode, "00010.png: the mask has colours"),
        (lambda root: (root / "train/Annotations" / VIDEO / "00010.png").unlink(), "00010.png does not exist"),
        (
            lambda root: (root / "train/Annotations" / VIDEO / "00010.png").write_bytes(b""),
            "00010.png: the file is empty",
        ),
    ],
)
def test_a_file_that_does_not_fit_sends_its_video_to_quarantine(
    one_video: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(one_video)
    with pytest.raises(BadItem, match=message) as problem:
        read_only_one(one_video)
    assert f"{one_video}/train/" in problem.value.reason


def test_a_video_that_meta_json_does_not_know_is_quarantined(one_video: Path) -> None:
    change_meta(one_video, lambda videos: videos.clear(), "train/meta.json")
    with pytest.raises(BadItem, match=r"train/meta.json is no object.*'objects'"):
        read_only_one(one_video)


def test_an_empty_expression_is_dropped_and_counted(one_video: Path) -> None:
    change_meta(one_video, lambda videos: videos[VIDEO]["expressions"]["4"].update(exp="  "))
    reading = read_only_one(one_video)
    assert reading.dropped == (Dropped(VIDEO, "empty expression", "expression 4"),)
    assert [said.id for said in reading.record.expressions] == ["0", "1", "2", "3", "5"]


def test_an_object_without_pixels_is_kept_with_empty_masks(one_video: Path) -> None:
    for path in (one_video / "train/Annotations" / VIDEO).iterdir():
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == 2, 0, ids)).save(path)
    reading = read_only_one(one_video)
    assert reading.dropped == ()
    tracks = {track.id: track for track in reading.record.objects}
    assert sorted(tracks) == [1, 2, 3]
    assert set(tracks[2].rle) == {rle_union([], (240, 428))}
    assert row_info(reading.record).untrainable == {2: NO_PIXELS, 3: NO_PIXELS}


def test_an_object_that_meta_json_does_not_name_has_no_category(one_video: Path) -> None:
    change_meta(one_video, lambda videos: videos[VIDEO]["objects"].pop("3"), "train/meta.json")
    reading = read_only_one(one_video)
    assert reading.dropped == ()
    assert {track.id: bool(track.category) for track in reading.record.objects} == {1: True, 2: True, 3: False}


def test_an_object_that_nothing_names_is_left_out(one_video: Path) -> None:
    change_meta(one_video, lambda videos: videos[VIDEO]["objects"].pop("3"), "train/meta.json")
    change_meta(one_video, lambda videos: [videos[VIDEO]["expressions"].pop(id) for id in ("4", "5")])
    assert read_only_one(one_video).dropped == (Dropped(VIDEO, "object without sentence", "object 3"),)


@pytest.fixture
def valid(data_kit: Path, tmp_path: Path) -> Path:
    """The real layout, with its valid frames, and without truth."""
    for part in ("meta_expressions", "valid"):
        shutil.copytree(data_kit / "refytvos" / part, tmp_path / part)
    return tmp_path


def records_of(root: Path, split: str = "valid") -> list[Record]:
    dataset = source(root, split)
    return [dataset.read(item).record for item in dataset.items()]


def test_valid_has_a_truth_where_masks_and_object_ids_are_there(valid: Path, data_kit: Path) -> None:
    truth = data_kit / "refytvos_gt/valid"
    assert all(said.object_ids is None for record in records_of(valid) for said in record.expressions)
    shutil.copytree(truth / "Annotations", valid / "valid/Annotations")
    assert all(said.object_ids is None for record in records_of(valid) for said in record.expressions)
    (listed,) = truth.glob("meta_expressions*.json")
    shutil.copy(listed, valid / "valid/meta_expressions_challenge.json")
    expected = {one.video: one for one in read_truths(str(truth))}
    for record in records_of(valid):
        found, wanted = truth_of(record), expected.pop(record.video)
        assert [(one.id, one.text, one.object_ids) for one in found.expressions] == [
            (one.id, one.text, one.object_ids) for one in wanted.expressions
        ]
        for one in found.expressions:
            for frame in range(len(found.frame_names)):
                assert found.rle(one, frame) == wanted.rle(one, frame)
    assert not expected


def test_valid_may_have_a_folder_of_masks_for_each_expression(valid: Path, data_kit: Path) -> None:
    truth = data_kit / "refytvos_gt/valid"
    (listed,) = truth.glob("meta_expressions*.json")
    shutil.copy(listed, valid / "valid/meta_expressions_challenge.json")
    expected = {one.video: one for one in read_truths(str(truth))}
    for one in expected.values():
        for said in one.expressions:
            folder = valid / "valid/Annotations" / one.video / said.id
            folder.mkdir(parents=True)
            for frame, name in enumerate(one.frame_names):
                mask = rle_to_mask(str(one.rle(said, frame)), one.size)
                if mask.any():  # a frame that does not show it has no PNG
                    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")
    raw = {one.video: one for one in read_truths(str(valid / "valid"))}
    for record in records_of(valid):
        wanted = expected[record.video]
        for found in (truth_of(record), raw[record.video]):
            for said, same in zip(found.expressions, wanted.expressions, strict=True):
                assert (said.id, said.text) == (same.id, same.text)
                assert [found.rle(said, frame) for frame in found.scored_frames(said)] == [
                    wanted.rle(same, frame) for frame in wanted.scored_frames(same)
                ]
        # Sentences about one object share its track.
        objects = {said.object_ids for said in wanted.expressions}
        assert len(record.objects) == len(raw[record.video].objects) == len(objects)
    video = next(iter(expected))
    folder = valid / "valid/Annotations" / video / expected[video].expressions[0].id
    for path in folder.iterdir():
        path.unlink()
    assert [one.objects[1].rle for one in read_truths(str(valid / "valid")) if one.video == video] == [
        next(one for one in records_of(valid) if one.video == video).objects[0].rle
    ], "an object that is never there has an empty folder"
    folder.rmdir()
    with pytest.raises(BadItem, match=f"Annotations/{video}/.* is missing: the masks of its expression"):
        records_of(valid)
    with pytest.raises(ValueError, match=f"Annotations/{video}/.* is missing: the masks of a sentence"):
        list(read_truths(str(valid / "valid")))


def test_a_frame_without_the_object_has_an_empty_mask_not_none(one_video: Path) -> None:
    Image.fromarray(np.zeros((240, 428), dtype=np.uint8)).save(one_video / "train/Annotations" / VIDEO / "00000.png")
    for track in read_only_one(one_video).record.objects:
        assert not rles_to_masks([str(track.rle[0])], (240, 428)).any()


def test_an_item_needs_nothing_but_its_key(data_kit: Path) -> None:
    for item in source(data_kit / "refytvos").items():
        assert isinstance(item, Item)
        assert json.loads(json.dumps(item.key)) == item.key
