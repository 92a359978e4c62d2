"""Prepared data to training clips on real Ray: the same steps for any number of workers, and from any step on."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clip_data import LENGTH, SIZE, VIDEO, annotated, made_up, rectangle, rows_of
from patience import PATIENCE
from pipelines.clips.augmentation import SMALL, ClipRecipe
from pipelines.clips.clip import apply_params, sample_params
from pipelines.clips.epoch_plan import lanes_of
from pipelines.clips.sample_reader import RowGroup, sample_of
from pipelines.clips.sampling import clip_rng
from pipelines.clips.slots import Slot, decode_row, slot_of
from pipelines.clips.stream import Streaming, TrainData, TrainPart, train, without_videos
from pipelines.files import Folder
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.records import ObjectTrack
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.synthetic import SyntheticConfig, write_synthetic
from pipelines.sources.ytvos import RefYouTubeVOS
from python_path import PYTHONPATH
from sgmg.masks import mask_to_rle, rle_to_mask

SCRIPT = Path(__file__).with_name("slow_clips.py")
WINDOW = 24
"""Samples of a read task: a few of them for an epoch of this data."""

Shown = tuple[int, int, str, str, str]
"""Step, lane, sample, why it was dropped, and sha256 of all there is in its clip."""


def part_of(source: Source, out: Path, recipe: ClipRecipe) -> TrainPart:
    """Everything prepared in this process, without Ray."""
    folder = Folder(str(out)).make()
    plans = plan_shards(source, {}, 2)
    for plan in plans:
        ShardWriter(source, folder).write(plan)
    return TrainPart(folder, finish(plans, source, folder, {}), recipe)


def shown(slot: Slot) -> Shown:
    digest = hashlib.sha256()
    if slot.clip is not None:
        arrays = [
            slot.clip.frames,
            *(array for one in slot.clip.targets for array in (one.masks, one.boxes, one.valid)),
        ]
        for array in arrays:
            digest.update(f"{array.shape}".encode() + array.tobytes())
        digest.update(f"{[one.text for one in slot.clip.targets]} {slot.clip.target_frame}".encode())
    return slot.step, slot.lane, slot.sample, slot.dropped, digest.hexdigest()


def steps_of(data: TrainData, world: int, start: int = 0) -> list[list[Shown]]:
    """The global batch of every step from `start` on, as `world` workers get it from Ray, one after another."""
    batches: dict[int, list[Shown]] = {}
    for rank in range(world):
        for slots in train(data, 0, rank, world, start, Streaming(world=world, window_samples=WINDOW)):
            batches.setdefault(slots[0].step, []).extend(map(shown, slots))
    return [sorted(batches[step], key=lambda one: one[1]) for step in sorted(batches)]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    """Videos and clips of image copies, together."""
    folder = tmp_path_factory.mktemp("synthetic")
    counts = SyntheticConfig(train_images=3, val_images=1, train_videos=3, valid_videos=1, test_videos=1, most_frames=8)
    paths = write_synthetic(folder / "raw", replace(counts, width=128, height=80))
    videos = part_of(RefYouTubeVOS(Folder(str(paths.ytvos)), "train"), folder / "videos", VIDEO)
    copies = ClipRecipe.pseudo_video(LENGTH, SMALL)
    images = part_of(RefCoco(Folder(str(paths.refcoco)), "train"), folder / "images", copies)
    return TrainData((videos, images), seed=5, global_batch=6, clips_per_pass=2, shuffle_window=4)


@pytest.fixture(scope="module")
def real(data_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    source = RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train")
    part = part_of(source, tmp_path_factory.mktemp("real"), replace(VIDEO, resize="torch"))
    return TrainData((part,), seed=1, global_batch=4, shuffle_window=8)


@pytest.fixture(scope="module")
def with_dropped(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    """Of one video in three the object is one pixel wide, in every frame: a box without area, whatever is drawn."""
    videos = [
        annotated(f"video {n}", 4, ObjectTrack(1, (rectangle(20, 21 if n % 3 == 0 else 40),) * 4)) for n in range(7)
    ]
    part = made_up(tmp_path_factory.mktemp("dropped"), *videos)
    return TrainData((part,), seed=0, global_batch=4, shuffle_window=2)


@pytest.fixture(scope="module")
def alone(synthetic: TrainData, ray_local: None) -> list[list[Shown]]:  # noqa: ARG001
    """All steps of one worker."""
    return steps_of(synthetic, 1)


def test_what_comes_out_of_ray_is_what_the_plan_says(synthetic: TrainData, alone: list[list[Shown]]) -> None:
    plan = synthetic.plan(0)
    assert len(alone) == plan.steps > 2 * WINDOW // plan.global_batch, "several read tasks"
    for step, slots in enumerate(alone):
        for lane, slot in enumerate(slots):
            sample = plan.slot(lane, step)
            if sample is None:
                assert slot[2] == ""
                continue
            part = synthetic.parts[sample.part]
            group = RowGroup.read(part.folder, sample.file, sample.row_group)
            found = sample_of(group, sample, part.recipe)
            drawn = sample_params(part.recipe, found.clip, clip_rng(synthetic.seed, 0, found.name))
            assert drawn is not None
            frames = [group.frame(sample.row, found.frames[place]) for place in drawn.distinct]
            clip = apply_params(drawn, frames, [found.clip.rles[place] for place in drawn.distinct])
            assert slot == shown(Slot(step, lane, found.name, clip))


def test_every_sample_comes_exactly_once_an_epoch(synthetic: TrainData, alone: list[list[Shown]]) -> None:
    names = Counter(slot[2] for slots in alone for slot in slots if slot[2])
    assert set(names.values()) == {1}
    assert len(names) == synthetic.plan(0).samples
    assert {name.split("/")[0] for name in names} == {"ref-youtube-vos", "refcoco"}


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_another_number_of_workers_gets_the_same_samples_and_pixels(
    synthetic: TrainData, alone: list[list[Shown]], world: int
) -> None:
    assert steps_of(synthetic, world) == alone


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("step", "world"), [(5, 2), pytest.param(4, 3, marks=pytest.mark.slow), (-1, 1)])
def test_the_rest_from_any_step_is_the_same_with_another_number_of_workers(
    synthetic: TrainData, alone: list[list[Shown]], step: int, world: int
) -> None:
    start = step % len(alone)
    assert steps_of(synthetic, world, start) == alone[start:]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_real_videos_give_the_same_steps_to_one_and_three_workers(real: TrainData) -> None:
    steps = steps_of(real, 1)
    assert len(steps) == real.plan(0).steps
    assert steps_of(real, 3) == steps
    assert steps_of(real, 2, start=5) == steps[5:]


@pytest.mark.usefixtures("ray_local")
def test_after_the_last_step_nothing_comes(synthetic: TrainData) -> None:
    assert list(train(synthetic, 0, 0, 1, synthetic.plan(0).steps)) == []


@pytest.mark.usefixtures("ray_local")
def test_dropped_samples_keep_their_slot_so_that_ranks_agree_on_the_steps(with_dropped: TrainData) -> None:
    ranks = [list(train(with_dropped, 0, rank, 3, streaming=Streaming(world=3))) for rank in range(3)]
    for rank, steps in enumerate(ranks):
        assert [slots[0].step for slots in steps] == list(range(with_dropped.plan(0).steps))
        assert all(tuple(slot.lane for slot in slots) == lanes_of(rank, 3, 4) for slots in steps)
    slots = [slot for steps in ranks for step in steps for slot in step]
    named = [slot for slot in slots if slot.sample]
    assert len({slot.sample for slot in named}) == len(named) == with_dropped.plan(0).samples == 14
    narrow = {f"own/train/video {n}" for n in (0, 3, 6)}
    for slot in named:
        assert (slot.clip is None) == (slot.sample.rsplit("/", 2)[0] in narrow)
        assert slot.dropped == ("object in no frame after 10 draws" if slot.clip is None else "")
    assert all(slot.clip is None and not slot.dropped for slot in slots if not slot.sample)


@pytest.mark.parametrize("sentences", [1, 3])
def test_a_clip_survives_the_way_between_two_workers(synthetic: TrainData, sentences: int) -> None:
    asked = set()
    for row in list(rows_of(replace(synthetic, sentences_per_clip=sentences)))[:12]:
        slot = slot_of(pa.Table.from_pylist([decode_row(row)]), 0)
        assert shown(slot) == shown(Slot(row["step"], row["lane"], row["sample"], _made(row)))
        asked.add(len(_made(row).targets))
    assert max(asked) == sentences


def _made(row: dict[str, Any]) -> Any:
    return apply_params(row["drawn"], row["frames"], row["rles"], row["siblings"]) if row["drawn"] else None


def test_further_sentences_of_a_clip_change_nothing_about_its_own(synthetic: TrainData) -> None:
    for one, more in zip(rows_of(synthetic), rows_of(replace(synthetic, sentences_per_clip=3)), strict=True):
        assert {**more, "siblings": []} == one


@pytest.mark.usefixtures("ray_local")
def test_several_sentences_a_clip_are_the_same_for_any_number_of_workers(synthetic: TrainData) -> None:
    data = replace(synthetic, sentences_per_clip=2)
    expected = [shown(Slot(row["step"], row["lane"], row["sample"], _made(row))) for row in rows_of(data)]
    assert [slot for step in steps_of(data, 3) for slot in step] == expected


def test_a_clip_of_a2d_asks_the_annotated_frame_alone(data_kit: Path, tmp_path: Path) -> None:
    source = A2DSentences(Folder(str(data_kit / "a2d")), "train")
    data = TrainData((part_of(source, tmp_path, ClipRecipe.one_target_frame(5, SMALL)),), seed=0, global_batch=1)
    records = {(record := source.read(item).record).video: record for item in source.items()}
    wanted = {
        f"a2d-sentences/train/{record.video}/{said.id}/{frame}": (record, said, frame)
        for record in records.values()
        for said in record.expressions
        for frame in said.frames or ()
    }
    rows = {row["sample"]: row for row in rows_of(data)}
    assert rows.keys() == wanted.keys()
    for name, row in rows.items():
        record, said, frame = wanted[name]
        drawn = row["drawn"]
        assert drawn.frames[drawn.target_frame] == frame
        assert drawn.target_frame == drawn.frames.index(frame), "the first of equal frames is asked"
        assert row["frames"] == [record.frames[number] for number in sorted(set(drawn.frames))]
        track = next(track for track in record.objects if track.id in said.targets)
        assert row["rles"][drawn.distinct.index(frame)] == track.rle[frame]
    first = next(iter(rows.values()))
    clip = _made(first)
    assert (len(clip.frames), len(clip.masks), clip.target_frame) == (5, 1, first["drawn"].target_frame)


def test_frames_that_are_not_annotated_are_in_no_clip_and_no_anchor(tmp_path: Path) -> None:
    known = (0, 2, 3, 6)
    rles = tuple(rectangle(20, 40) if t in known else None for t in range(8))
    record = annotated("a", 8, ObjectTrack(1, rles), sentences=2)
    rows = list(rows_of(TrainData((made_up(tmp_path, record),), seed=0, global_batch=1)))
    assert sorted(row["sample"] for row in rows) == [f"own/train/a/{n}/{t}" for n in (0, 1) for t in (0, 6)]
    for row in rows:
        assert set(row["frames"]) <= {record.frames[t] for t in known}
        assert None not in row["rles"]


def test_a_sentence_about_several_objects_has_the_union_of_them_as_its_target(tmp_path: Path) -> None:
    tracks = [ObjectTrack(id, (rectangle(left, left + 10),) * 3) for id, left in ((3, 5), (8, 30), (9, 45))]
    record = annotated("a", 3, *tracks, ids=(3, 8))
    (row,) = rows_of(TrainData((made_up(tmp_path, record),), seed=0, global_batch=1))
    both = rle_to_mask(rectangle(5, 15), SIZE) | rle_to_mask(rectangle(30, 40), SIZE)
    for rle in row["rles"]:
        np.testing.assert_array_equal(rle_to_mask(rle, SIZE), both)


def test_an_image_too_narrow_for_copies_is_left_out_with_its_reason(tmp_path: Path) -> None:
    narrow = replace(annotated("a", 1, ObjectTrack(1, ("",))), width=200, height=40)
    narrow = replace(narrow, objects=(ObjectTrack(1, (mask_to_rle(np.ones((40, 200), dtype=np.bool_)),)),))
    recipe = ClipRecipe.pseudo_video(LENGTH, SMALL)
    (row,) = rows_of(TrainData((made_up(tmp_path, narrow, recipe=recipe),), seed=0, global_batch=1))
    assert (row["dropped"], row["frames"]) == ("image too narrow for a clip of copies", [])


def test_a_damaged_frame_is_an_error_that_names_the_sample(tmp_path: Path) -> None:
    record = annotated("a", 3, ObjectTrack(1, (rectangle(20, 40),) * 3))
    data = TrainData((made_up(tmp_path, replace(record, frames=(b"no image",) * 3)),), seed=0, global_batch=1)
    (row,) = rows_of(data)
    with pytest.raises(ValueError, match=r"own/train/a/0/0: 8 bytes .* are no image"):
        decode_row(row)


def test_held_out_videos_are_in_no_step(synthetic: TrainData) -> None:
    part = synthetic.parts[0]
    first = part.manifest.shards[0].row_groups[0][0].video
    data = replace(synthetic, parts=(replace(part, manifest=without_videos(part.manifest, frozenset({first}))),))
    videos = {row["sample"].split("/")[2] for row in rows_of(data) if row["sample"]}
    assert videos == {row.video for s in part.manifest.shards for g in s.row_groups for row in g} - {first}


def test_clips_of_different_length_cannot_share_a_batch(synthetic: TrainData) -> None:
    other = replace(synthetic.parts[0], recipe=ClipRecipe.video(5, SMALL))
    with pytest.raises(ValueError, match=r"Clips of \[3, 5\] frames cannot share a batch"):
        replace(synthetic, parts=(synthetic.parts[1], other))


@pytest.mark.slow
def test_a_killed_worker_changes_no_step(real: TrainData, tmp_path: Path) -> None:
    data = replace(real, parts=(replace(real.parts[0], recipe=ClipRecipe.video(LENGTH)),))
    out = tmp_path / "steps.json"
    words = [sys.executable, str(SCRIPT), data.parts[0].folder.uri, str(out)]
    variables = {**os.environ, "PYTHONPATH": PYTHONPATH, "RAY_AUTH_MODE": "disabled"}
    run = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=variables)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["killed"] >= 1
    assert found["left"] > 0, "the worker was to be killed before the last step"
    expected = [
        shown(Slot(row["step"], row["lane"], row["sample"], _made(row), row["dropped"])) for row in rows_of(data)
    ]
    assert [tuple(slot) for slot in found["slots"]] == expected
