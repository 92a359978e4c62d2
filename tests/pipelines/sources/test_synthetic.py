"""Nothing here looks at how a clip was drawn: colours, places and ways are measured in the files, as users see them."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pack import ROOT
from patience import PATIENCE
from pipelines.files import Folder
from pipelines.records import Record
from pipelines.sources.base import Source
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.synthetic import SyntheticConfig, SyntheticPaths, upload_synthetic, write_synthetic
from pipelines.sources.synthetic_scene import COLOURS, PLAIN, SHAPES
from pipelines.sources.ytvos import RefYouTubeVOS
from s3_server import S3Server
from sgmg.masks import rle_to_xywh, rles_to_masks

FEW = SyntheticConfig(train_images=16, val_images=4, train_videos=24, valid_videos=3, test_videos=2)
FEWEST = SyntheticConfig(
    train_images=2, val_images=1, train_videos=2, valid_videos=1, test_videos=1, width=96, height=64
)
TRUTH = "meta_expressions_with_obj_id.json"
SWAPPED = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Seen:
    """An object as its pixels show it: its looks, and its masks in every frame."""

    size: str
    colour: str
    shape: str
    masks: np.ndarray  # t h w

    @property
    def times(self) -> np.ndarray:
        return np.flatnonzero(self.masks.any(axis=(1, 2)))

    @property
    def places(self) -> np.ndarray:
        """x, y of the middle in every frame where it is seen, as shares of the frame."""
        height, width = self.masks.shape[1:]
        middles = [np.argwhere(self.masks[t]).mean(axis=0) + 0.5 for t in self.times]
        return np.array(middles)[:, ::-1] / (width, height)

    @property
    def moves(self) -> bool:
        """Whether it covers, in the course of the clip, much more than at its largest."""
        return self.masks.any(axis=0).sum() > 1.55 * self.masks.sum(axis=(1, 2)).max()

    def goes(self, axis: int, sign: int) -> bool:
        way = sign * (self.places[-1] - self.places[0])
        return self.moves and way[axis] > max(0.03, abs(way[1 - axis]))


Rule = Callable[[Seen, list[Seen]], bool]
CLAUSES: dict[str, Rule] = {
    "on the left": lambda one, _: one.places[:, 0].max() < 0.5,
    "on the right": lambda one, _: one.places[:, 0].min() > 0.5,
    "at the top": lambda one, _: one.places[:, 1].max() < 0.5,
    "at the bottom": lambda one, _: one.places[:, 1].min() > 0.5,
    "moving left": lambda one, _: one.goes(0, -1),
    "moving right": lambda one, _: one.goes(0, 1),
    "moving up": lambda one, _: one.goes(1, -1),
    "moving down": lambda one, _: one.goes(1, 1),
    "standing still": lambda one, _: not one.moves,
    "that moves": lambda one, _: one.moves,
    "that appears last": lambda one, all: one.times[0] == max(other.times[0] for other in all),
    "that leaves first": lambda one, all: one.times[-1] == min(other.times[-1] for other in all),
    "that comes in from the left": lambda one, _: one.times[0] > 0 and one.places[0, 0] < 0.5,
    "that comes in from the right": lambda one, _: one.times[0] > 0 and one.places[0, 0] > 0.5,
    "that leaves to the left": lambda one, _: one.times[-1] < len(one.masks) - 1 and one.places[-1, 0] < 0.5,
    "that leaves to the right": lambda one, _: one.times[-1] < len(one.masks) - 1 and one.places[-1, 0] > 0.5,
}
OTHER_WORDS = {
    "on the left side": "on the left",
    "on the right side": "on the right",
    "that does not move": "standing still",
    **{f"that moves to the {side}": f"moving {side}" for side in ("left", "right")},
    **{f"that moves {way}": f"moving {way}" for way in ("up", "down")},
}


def clause_of(text: str) -> str:
    return next((clause for clause in sorted([*CLAUSES, *OTHER_WORDS], key=len)[::-1] if text.endswith(clause)), "")


def meant(text: str, objects: list[Seen]) -> list[int]:
    """The positions of every object that fits a sentence; fails on a word it does not know."""
    clause = clause_of(text)
    looks = set(text.removesuffix(clause).split()) - {"the", "object"}
    known = {"small", "large", *COLOURS, *SHAPES}
    assert looks <= known, text
    rule = CLAUSES[OTHER_WORDS.get(clause, clause)] if clause else lambda *_: True
    fits = [looks <= {one.size, one.colour, one.shape} and rule(one, objects) for one in objects]
    return np.flatnonzero(fits).tolist()


def pixels_of(record: Record) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in record.frames]).astype(int)


def nearest_colour(pixels: np.ndarray) -> list[str]:
    distances = ((pixels[:, None] - np.array(list(COLOURS.values()))) ** 2).sum(axis=-1)
    return [list(COLOURS)[index] for index in distances.argmin(axis=1)]


def objects_of(record: Record, masks: np.ndarray, shapes: list[str]) -> list[Seen]:
    """The objects of a clip as its pixels show them; masks are o t h w."""
    frames = pixels_of(record)
    seen = []
    for mask, shape in zip(masks, shapes, strict=True):
        (colour,) = nearest_colour(np.median(frames[mask], axis=0)[None])
        largest = mask.mean(axis=(1, 2)).max()
        assert 0.014 < largest < 0.032 or 0.045 < largest < 0.1
        seen.append(Seen("small" if largest < 0.032 else "large", colour, shape, mask))
    return seen


def masks_of(record: Record) -> np.ndarray:
    size = record.height, record.width
    return np.stack([rles_to_masks([rle or "" for rle in track.rle], size) for track in record.objects])


def records_of(source: Source) -> list[Record]:
    """Every record of a split, of which nothing is dropped."""
    readings = [source.read(item) for item in source.items()]
    assert [reading.dropped for reading in readings] == [()] * len(readings)
    return [reading.record for reading in readings]


def read_truth(truth: Path, record: Record) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Masks, o t h w, and every sentence with its object, from a folder of truth."""
    video = json.loads((truth / TRUTH).read_text())["videos"][record.video]
    assert video["frames"] == list(record.frame_names)
    folder = truth / "Annotations" / record.video
    ids = np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in record.frame_names])
    masks = np.stack([ids == id for id in range(1, ids.max() + 1)])
    return masks, [(said["exp"], int(said["obj_id"])) for said in video["expressions"].values()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPaths:
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "data", FEW)


@pytest.fixture(scope="module")
def images(paths: SyntheticPaths) -> list[Record]:
    return [one for split in ("train", "val") for one in records_of(RefCoco(Folder(str(paths.refcoco)), split))]


@pytest.fixture(scope="module")
def videos(paths: SyntheticPaths) -> list[Record]:
    return records_of(RefYouTubeVOS(Folder(str(paths.ytvos)), "train"))


@pytest.fixture(scope="module")
def told(images: list[Record], videos: list[Record]) -> list[tuple[Record, list[Seen]]]:
    """Every clip whose truth its record holds, with its objects."""
    return [(one, objects_of(one, masks_of(one), [track.category for track in one.objects])) for one in images + videos]


def test_every_image_is_read_by_the_source_of_refcoco(paths: SyntheticPaths, images: list[Record]) -> None:
    assert [(one.split, one.width, one.height) for one in images] == [("train", 256, 160)] * 16 + [
        ("val", 256, 160)
    ] * 4
    coco = json.loads((paths.refcoco / "refcoco/instances.json").read_text())
    areas = {one["id"]: one["area"] for one in coco["annotations"]}
    for record in images:
        assert len(record.objects) in (3, 4)
        for track, mask in zip(record.objects, masks_of(record), strict=True):
            x, y, width, height = rle_to_xywh(track.rle[0] or "", (160, 256))
            assert track.boxes == ((x, y, x + width, y + height),)
            assert track.area == (mask.sum(),) == (areas[track.id],)
            assert not track.iscrowd


def test_the_refs_file_has_the_official_keys_in_protocol_2(paths: SyntheticPaths) -> None:
    data = (paths.refcoco / "refcoco/refs(unc).p").read_bytes()
    refs: list[dict[str, Any]] = pickle.loads(data)
    assert data[:2] == b"\x80\x02"
    for key in ("ref_id", "ann_id"):
        assert len({ref[key] for ref in refs}) == len(refs)
    keys = {"ref_id", "ann_id", "file_name", "image_id", "split", "sentences", "sent_ids", "category_id"}
    for ref in refs:
        assert ref.keys() == keys
        assert [sentence["sent_id"] for sentence in ref["sentences"]] == ref["sent_ids"]
        for sentence in ref["sentences"]:
            assert sentence["raw"] == sentence["sent"] == " ".join(sentence["tokens"])


def test_every_video_is_read_by_the_source_of_ref_youtube_vos(paths: SyntheticPaths, videos: list[Record]) -> None:
    root = Folder(str(paths.ytvos))
    read = {"train": videos} | {split: records_of(RefYouTubeVOS(root, split)) for split in ("valid", "test")}
    assert {split: len(records) for split, records in read.items()} == {"train": 24, "valid": 3, "test": 2}
    assert len({record.video for records in read.values() for record in records}) == 29
    for record in [*read["train"], *read["valid"], *read["test"]]:
        assert len(record.video) == 10
        assert set(record.video) <= set("0123456789abcdef")
        assert 8 <= len(record.frame_names) <= 12
        assert record.frame_names == tuple(f"{5 * t:05d}" for t in range(len(record.frame_names)))
        assert (record.width, record.height) == (256, 160)
    for record in videos:
        folder = paths.ytvos / "train/Annotations" / record.video
        ids = np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in record.frame_names])
        assert (masks_of(record) == [ids == track.id for track in record.objects]).all()


def test_valid_and_test_hold_no_truth_and_the_file_of_valid_lists_both(paths: SyntheticPaths) -> None:
    listed = {
        split: json.loads((paths.ytvos / "meta_expressions" / split / "meta_expressions.json").read_text())["videos"]
        for split in ("valid", "test")
    }
    assert len(listed["valid"]) == 5
    assert listed["test"].items() <= listed["valid"].items()
    assert "obj_id" not in json.dumps(listed)
    assert not (paths.ytvos / "valid/Annotations").exists()
    assert not (paths.ytvos / "test/Annotations").exists()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_truth_kept_aside_fits_the_raw_videos_word_by_word(paths: SyntheticPaths, split: str) -> None:
    truth = paths.valid_truth if split == "valid" else paths.test_truth
    records = records_of(RefYouTubeVOS(Folder(str(paths.ytvos)), split))
    assert {record.video for record in records} == set(json.loads((truth / TRUTH).read_text())["videos"])
    for record in records:
        masks, sentences = read_truth(truth, record)
        assert [text for text, _ in sentences] == [said.text for said in record.expressions]
        shapes = [shape_of(mask, masks) or "" for mask in masks]
        objects = objects_of(record, masks, shapes)
        for text, id in sentences:
            if all(shapes) or not set(text.split()) & set(SHAPES):  # Some shapes cannot be measured: partly hidden.
                assert meant(text, objects) == [id - 1]


def test_a_mask_is_where_its_colour_is_and_everything_else_is_grey(told: list[tuple[Record, list[Seen]]]) -> None:
    kernel = np.ones((7, 7), dtype=np.uint8)
    for record, objects in told:
        for t, frame in enumerate(pixels_of(record)):
            for one in objects:
                core = cv2.erode(one.masks[t].view(np.uint8), kernel, borderValue=1) > 0
                assert np.mean([colour == one.colour for colour in nearest_colour(frame[core])] or [True]) > 0.9
            others = np.any([one.masks[t] for one in objects], axis=0)
            background = frame[cv2.dilate(others.view(np.uint8), kernel) == 0]
            assert (np.ptp(background, axis=1) < 60).mean() > 0.99
            assert ((background > 50) & (background < 210)).mean() > 0.99


def shape_of(masks: np.ndarray, all_masks: np.ndarray) -> str | None:
    """The shape of an object by its outline in a frame where nothing touches it; None where there is none."""
    for t, mask in enumerate(masks):
        near = cv2.dilate(mask.view(np.uint8), np.ones((5, 5), dtype=np.uint8)) > 0
        inner = np.zeros_like(mask)
        inner[3:-3, 3:-3] = True
        if not mask.any() or (mask & ~inner).any() or (near & all_masks[:, t].any(axis=0) & ~mask).any():
            continue
        (outline,), _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        area = cv2.contourArea(outline)
        if area / cv2.contourArea(cv2.convexHull(outline)) < 0.85:
            return "cross"
        full = area / (np.pi * cv2.minEnclosingCircle(outline)[1] ** 2)
        return "disc" if full > 0.82 else "square" if full > 0.52 else "triangle"
    return None


def test_the_category_is_the_shape_of_the_outline(told: list[tuple[Record, list[Seen]]]) -> None:
    checked = 0
    for _, objects in told:
        masks = np.stack([one.masks for one in objects])
        for one in objects:
            found = shape_of(one.masks, masks)
            assert found in (one.shape, None)
            checked += found is not None
    assert checked > 40


def test_every_sentence_is_true_of_its_object_and_of_no_other(told: list[tuple[Record, list[Seen]]]) -> None:
    for record, objects in told:
        ids = [track.id for track in record.objects]
        for said in record.expressions:
            assert [ids[index] for index in meant(said.text, objects)] == list(said.targets), (record.video, said)


def test_it_stays_true_when_the_clip_is_mirrored_and_left_and_right_trade_places(
    told: list[tuple[Record, list[Seen]]],
) -> None:
    sides = 0
    for record, objects in told:
        mirrored = [replace(one, masks=one.masks[:, :, ::-1]) for one in objects]
        ids = [track.id for track in record.objects]
        for said in record.expressions:
            text = " ".join(SWAPPED.get(word, word) for word in said.text.split())
            assert [ids[index] for index in meant(text, mirrored)] == list(said.targets)
            sides += text != said.text
    assert sides > 20


def test_plain_images_are_told_by_colour_and_shape_and_videos_stay_as_they_are(
    tmp_path: Path, videos: list[Record]
) -> None:
    paths = write_synthetic(tmp_path / "plain", replace(FEW, image_variety=PLAIN))
    assert [one.expressions for one in records_of(RefYouTubeVOS(Folder(str(paths.ytvos)), "train"))] == [
        one.expressions for one in videos
    ]
    for record in records_of(RefCoco(Folder(str(paths.refcoco)), "train")):
        objects = objects_of(record, masks_of(record), [track.category for track in record.objects])
        ids = [track.id for track in record.objects]
        assert [said.object_ids for said in record.expressions] == [(one,) for one in ids]
        for said in record.expressions:
            index = ids.index(said.targets[0])
            assert said.text == f"the {objects[index].colour} {objects[index].shape}"
            assert meant(said.text, objects) == [index]


def test_every_object_has_sentences_and_no_two_of_a_clip_are_the_same(told: list[tuple[Record, list[Seen]]]) -> None:
    for record, _ in told:
        assert {id for said in record.expressions for id in said.targets} == {one.id for one in record.objects}
        texts = [said.text.removeprefix("the ") for said in record.expressions]
        assert len(set(texts)) == len(texts) > len(record.objects)


def test_one_word_rarely_tells_the_objects_apart(told: list[tuple[Record, list[Seen]]]) -> None:
    alike = [
        any(len({getattr(one, trait) for one in objects}) < len(objects) for trait in ("colour", "shape"))
        for _, objects in told
    ]
    assert np.mean(alike) > 0.8


def test_images_speak_of_looks_and_places_and_videos_of_motion_and_order_too(
    images: list[Record], videos: list[Record]
) -> None:
    still, moving = ({clause_of(said.text) for one in some for said in one.expressions} for some in (images, videos))
    places = {"on the left", "on the right", "at the top", "at the bottom"}
    assert places <= still <= {"", *places, "on the left side", "on the right side"}
    assert places <= moving
    moving = {OTHER_WORDS.get(clause, clause) for clause in moving}
    assert {"moving left", "moving right", "standing still"} <= moving
    assert len({clause for clause in CLAUSES if clause.startswith("that")} & moving) >= 3  # rarer ones


def test_some_objects_hide_others_come_in_and_leave(told: list[tuple[Record, list[Seen]]]) -> None:
    late = [one for _, objects in told for one in objects if one.times[0] > 0]
    gone = [one for _, objects in told for one in objects if one.times[-1] < len(one.masks) - 1]
    hidden = [
        one for _, objects in told for one in objects if not one.moves and np.ptp(one.masks.sum(axis=(1, 2))) > 99
    ]
    assert min(len(late), len(gone), len(hidden)) >= 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_synthetic(tmp_path / name, replace(FEWEST, seed=seed))
    a, b, c = (files_of(tmp_path / name) for name in "abc")
    assert a == b
    frame = "refcoco_root/train2014/COCO_train2014_000000000001.jpg"
    assert a[frame] != c[frame]


def test_more_clips_leave_the_others_as_they_are(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "few", FEWEST)
    more = replace(FEWEST, train_images=3, val_images=2, train_videos=3, valid_videos=2, test_videos=2)
    write_synthetic(tmp_path / "more", more)
    few = {name: data for name, data in files_of(tmp_path / "few").items() if name.endswith(("jpg", "png"))}
    assert few.items() < files_of(tmp_path / "more").items()


def test_a_second_call_does_nothing(tmp_path: Path) -> None:
    paths = write_synthetic(tmp_path / "data", FEWEST)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_synthetic(tmp_path / "data", FEWEST) == paths
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_another_configuration_is_an_error_that_names_the_difference(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "data", FEWEST)
    before = files_of(tmp_path)
    with pytest.raises(
        ValueError, match=r"data is another dataset: seed is 0, not 3; train_videos is 2, not 5\. Choose"
    ):
        write_synthetic(tmp_path / "data", replace(FEWEST, seed=3, train_videos=5))
    assert files_of(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"mine has no synthetic\.json, so it was not made by this"):
        write_synthetic(tmp_path / "mine", FEWEST)
    assert files_of(tmp_path) == {"mine/notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    assert write_synthetic(tmp_path / "empty", FEWEST).refcoco.is_dir()


def test_a_killed_run_leaves_no_folder_and_the_next_one_is_whole(tmp_path: Path) -> None:
    call = f"write_synthetic(Path({str(tmp_path / 'data')!r}), SyntheticConfig(train_images=100_000))"
    script = f"from pathlib import Path\nfrom pipelines.sources.synthetic import *\n{call}"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        end = time.monotonic() + PATIENCE
        while not any(tmp_path.rglob("*.jpg")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "data").exists()
    write_synthetic(tmp_path / "data", FEWEST)
    write_synthetic(tmp_path / "unharmed", FEWEST)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "unharmed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "unharmed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_videos": 0}, "valid_videos is 0, but every split needs at least one"),
        ({"seed": -1}, "seed is -1. Give a whole number from 0"),
        ({"fewest_frames": 2}, "Videos of 2 to 12 frames: give at least 6"),
        ({"fewest_frames": 13}, "Videos of 13 to 12 frames"),
        ({"width": 32}, "Frames of 32x160: give sides of at least 64"),
        ({"width": 640}, "Frames of 640x160: .* none longer than twice the other"),
    ],
)
def test_a_configuration_that_cannot_be_drawn_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FEW, **changes)


def test_upright_frames_hold_scenes_too(tmp_path: Path) -> None:
    paths = write_synthetic(tmp_path / "data", replace(FEWEST, width=64, height=128, fewest_frames=6, most_frames=6))
    for record in records_of(RefYouTubeVOS(Folder(str(paths.ytvos)), "train")):
        assert (record.width, record.height, len(record.frames)) == (64, 128, 6)


def test_it_is_copied_to_a_bucket_once_and_another_one_is_refused(tmp_path: Path, s3_server: S3Server) -> None:
    write_synthetic(tmp_path / "a", FEWEST)
    bucket = Folder(s3_server.uri("drawn"))
    upload_synthetic(tmp_path / "a", bucket)
    bucket.download(tmp_path / "copy")
    files, copies = (
        {path.relative_to(root): path for path in root.rglob("*.*")} for root in (tmp_path / "a", tmp_path / "copy")
    )
    assert {name: path.read_bytes() for name, path in files.items()} == {
        name: path.read_bytes() for name, path in copies.items()
    }
    bucket.remove("refcoco_root/refcoco/instances.json")
    s3_server.requests()
    upload_synthetic(tmp_path / "a", bucket)
    written = [one.removeprefix("PUT /bucket/") for one in s3_server.requests() if one.startswith("PUT")]
    assert written == ["drawn/refcoco_root/refcoco/instances.json"]
    write_synthetic(tmp_path / "b", replace(FEWEST, seed=1))
    with pytest.raises(ValueError, match="drawn is another dataset"):
        upload_synthetic(tmp_path / "b", bucket)
