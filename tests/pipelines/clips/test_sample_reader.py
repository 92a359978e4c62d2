"""One sample out of a row group: which frames, which target, under which name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.clips.augmentation import SMALL, ClipRecipe
from pipelines.clips.epoch_plan import SampleRef
from pipelines.clips.sample_reader import FoundSample, RowGroup, sample_of, sibling_samples
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.records import Expression, ObjectTrack, Record
from prepared_data import a_record, prepared_folder
from sgmg.masks import mask_to_rle, rle_to_mask

SIZE = (40, 56)
VIDEO = ClipRecipe.video(3, SMALL)
LEFT, RIGHT = (np.zeros(SIZE, dtype=np.bool_) for _ in range(2))
LEFT[:, :20] = True
RIGHT[:, 30:] = True
A, B = mask_to_rle(LEFT), mask_to_rle(RIGHT)


def record(*tracks: ObjectTrack, said: Expression) -> Record:
    whole = a_record("a", len(tracks[0].rle), dataset="own")
    return replace(whole, split="train", objects=tracks, expressions=(Expression("first", "it"), said))


def found(path: Path, one: Record, recipe: ClipRecipe, anchor: int = 0) -> tuple[RowGroup, FoundSample]:
    folder = Folder(str(prepared_folder(path, [a_record("other", 2, dataset="own"), one])))
    group = RowGroup.read(folder, read_manifest(folder).shards[0].file, 0)
    return group, sample_of(group, SampleRef(0, "", 0, row=1, expression=1, anchor=anchor), recipe)


def test_a_row_group_gives_single_frames_and_everything_else_of_a_row(tmp_path: Path) -> None:
    one = record(ObjectTrack(1, (A, B)), said=Expression("7", "that", (1,)))
    group, _ = found(tmp_path, one, VIDEO)
    assert [group.frame(1, number) for number in range(2)] == list(one.frames)
    row = group.row(1)
    assert (row["video"], row["height"], row["width"]) == ("a", *SIZE)
    assert row["expressions"][1]["text"] == "that"
    assert "frames" not in row


def test_the_target_is_the_track_of_the_object_the_sentence_speaks_of(tmp_path: Path) -> None:
    tracks = (ObjectTrack(4, (A,) * 4), ObjectTrack(2, (B, "", B, B)))
    _, sample = found(tmp_path, record(*tracks, said=Expression("7", "that", (2,))), VIDEO, anchor=1)
    assert sample.clip.rles == list(tracks[1].rle)
    assert (sample.clip.text, sample.clip.size, sample.clip.boxes) == ("that", SIZE, None)
    assert (sample.name, sample.clip.anchor, sample.frames) == ("own/train/a/7/3", 3, (0, 1, 2, 3))


def test_several_objects_are_one_target_without_a_box_of_the_source(tmp_path: Path) -> None:
    box = (0.0, 0.0, 19.0, 39.0)
    tracks = (ObjectTrack(1, (A,) * 2, boxes=(box,) * 2), ObjectTrack(2, (B,) * 2))
    _, sample = found(tmp_path, record(*tracks, said=Expression("7", "both", (1, 2))), VIDEO)
    for rle in sample.clip.rles:
        assert rle is not None
        np.testing.assert_array_equal(rle_to_mask(rle, SIZE), LEFT | RIGHT)
    assert sample.clip.boxes is None


def test_boxes_of_the_source_go_with_the_object(tmp_path: Path) -> None:
    box = (0.5, 0.0, 19.0, 39.0)
    _, sample = found(
        tmp_path, record(ObjectTrack(1, (A, A), boxes=(box, None)), said=Expression("7", "it", (1,))), VIDEO
    )
    assert sample.clip.boxes == [box, None]


def test_where_all_frames_need_a_target_those_without_annotation_are_not_there(tmp_path: Path) -> None:
    rles = (A, None, A, None, A, A, A)
    said = Expression("7", "it", (1,))
    # The other object decides too: nobody knows whether it hides the first one.
    tracks = (ObjectTrack(1, rles), ObjectTrack(2, (B, B, B, B, B, B, None)))
    _, sample = found(tmp_path, record(*tracks, said=said), VIDEO, anchor=1)
    assert sample.frames == (0, 2, 4, 5)
    assert (sample.name, sample.clip.anchor) == ("own/train/a/7/5", 3)
    assert sample.clip.rles == [A] * 4


def test_where_only_the_anchor_needs_one_all_frames_are_there(tmp_path: Path) -> None:
    rles = (None, A, None, B, None)
    asked = Expression("7", "it", (1,), frames=(1, 3))
    recipe = ClipRecipe.one_target_frame(3, SMALL)
    _, sample = found(tmp_path, record(ObjectTrack(1, rles), said=asked), recipe, anchor=1)
    assert sample.frames == (0, 1, 2, 3, 4)
    assert (sample.name, sample.clip.anchor, sample.clip.rles) == ("own/train/a/7/3", 3, list(rles))


@pytest.mark.parametrize(("size", "fits"), [((200, 640), True), ((199, 640), False), ((640, 199), False)])
def test_an_image_is_copied_unless_it_is_too_narrow(tmp_path: Path, size: tuple[int, int], fits: bool) -> None:
    rle = mask_to_rle(np.ones(size, dtype=np.bool_))
    one = record(ObjectTrack(1, (rle,)), said=Expression("7", "it", (1,)))
    one = replace(one, height=size[0], width=size[1])
    for recipe, unfit in ((ClipRecipe.pseudo_video(3, SMALL), not fits), (ClipRecipe.image(SMALL), False)):
        _, sample = found(tmp_path / str(unfit) / str(recipe.length), one, recipe)
        assert sample.unfit == ("image too narrow for a clip of copies" if unfit else "")


def test_other_sentences_are_of_the_same_frames_and_can_be_learned_from(tmp_path: Path) -> None:
    tracks = (ObjectTrack(1, (A, None, A)), ObjectTrack(2, (B, None, B)))
    one = record(*tracks, said=Expression("1", "own", (1,)))
    others = [Expression(str(number), f"other {number}", (2,)) for number in range(2, 6)]
    one = replace(one, expressions=(Expression("0", "crowd", (1,)), one.expressions[1], *others))
    group, sample = found(tmp_path, one, VIDEO)
    reference = SampleRef(0, "", 0, row=1, expression=1, anchor=0)

    def drawn(count: int, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        clips = sibling_samples(group, reference, sample, {0}, count, rng)
        assert all((clip.rles, clip.anchor) == ([B, B], sample.clip.anchor) for clip in clips)
        return [clip.text for clip in clips]

    assert sorted(drawn(9)) == [f"other {number}" for number in range(2, 6)]
    assert drawn(2) == drawn(9)[:2]
    assert len({tuple(drawn(4, seed)) for seed in range(9)}) > 3


def test_other_sentences_of_a2d_are_asked_at_the_same_frame(tmp_path: Path) -> None:
    one = record(ObjectTrack(1, (A, None, B)), said=Expression("1", "own", (1,), frames=(0, 2)))
    elsewhere = Expression("2", "elsewhere", (1,), frames=(2,))
    one = replace(
        one, expressions=(elsewhere, one.expressions[1], replace(elsewhere, id="3", text="here", frames=(0,)))
    )
    group, sample = found(tmp_path, one, ClipRecipe.one_target_frame(3, SMALL))
    clips = sibling_samples(group, SampleRef(0, "", 0, 1, 1, 0), sample, (), 5, np.random.default_rng(0))
    assert [(clip.text, clip.anchor) for clip in clips] == [("here", 0)]


def test_each_object_is_spoken_of_before_any_is_again(tmp_path: Path) -> None:
    tracks = tuple(ObjectTrack(number, (A, B)) for number in range(3))
    one = record(*tracks, said=Expression("own", "object 0", (0,)))
    more = [Expression(f"{number}-{again}", f"object {number}", (number,)) for again in range(3) for number in range(3)]
    one = replace(one, expressions=(*one.expressions, *more))
    group, sample = found(tmp_path, one, VIDEO)
    orders = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        clips = sibling_samples(group, SampleRef(0, "", 0, 1, 1, 0), sample, {0}, 8, rng, spread=True)
        spoken = [clip.text for clip in clips]
        orders.add(tuple(spoken))
        assert set(spoken[:2]) == {"object 1", "object 2"}
        assert set(spoken[2:5]) == set(spoken[5:8]) == {"object 0", "object 1", "object 2"}
    assert len(orders) > 10
