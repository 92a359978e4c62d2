from dataclasses import replace

import numpy as np
import pytest

from pipelines.manifest import CROWD, NO_AREA, NO_PIXELS, WITHHELD, RowInfo, annotated_frames
from pipelines.prepare.row_info import row_info
from pipelines.records import Expression, ObjectTrack, Record
from sgmg.masks import mask_to_rle

EMPTY, FULL = mask_to_rle(np.zeros((2, 3), dtype=bool)), mask_to_rle(np.ones((2, 3), dtype=bool))


def record(*tracks: ObjectTrack, expressions: tuple[Expression, ...], frames: int) -> Record:
    return Record(
        dataset="own",
        split="train",
        video="a",
        width=3,
        height=2,
        frame_names=tuple(map(str, range(frames))),
        frames=(b"",) * frames,
        objects=tracks,
        expressions=expressions,
        source="a",
        source_fingerprint="",
        original_width=3,
        original_height=2,
    )


def test_a_sentence_along_the_whole_video_needs_no_more_than_a_number() -> None:
    track = ObjectTrack(1, (FULL, FULL, EMPTY))
    found = row_info(record(track, expressions=(Expression("0", "it", (1,)), Expression("1", "it", (1,))), frames=3))
    assert found == RowInfo("a", frames=3, expressions=2)


def test_only_frames_in_which_every_object_is_annotated_are_counted() -> None:
    tracks = (ObjectTrack(1, (None, FULL, EMPTY, FULL)), ObjectTrack(2, (FULL, None, FULL, FULL)))
    assert annotated_frames([track.rle for track in tracks]) == [2, 3]
    assert row_info(record(*tracks, expressions=(Expression("0", "it", (1,)),), frames=4)).frames == 2


def test_without_truth_every_frame_is_counted() -> None:
    assert row_info(record(expressions=(Expression("0", "it"),), frames=4)).frames == 4


def test_asked_frames_are_counted_by_expression() -> None:
    track = ObjectTrack(1, (FULL, FULL, None))
    expressions = (Expression("0", "it", (1,), frames=(0, 1)), Expression("1", "it", (1,), frames=(1,)))
    assert row_info(record(track, expressions=expressions, frames=3)).anchor_counts == (2, 1)


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        (ObjectTrack(1, (FULL,), iscrowd=True), CROWD),
        (ObjectTrack(1, (FULL,), boxes=((1.0, 0.0, 1.0, 2.0),)), NO_AREA),
        (ObjectTrack(1, (FULL,), boxes=((0.0, 1.0, 2.0, 1.0),)), NO_AREA),
        (ObjectTrack(1, (EMPTY,), boxes=((0.0, 0.0, 1.0, 1.0),)), NO_PIXELS),
        (ObjectTrack(1, (None,)), NO_PIXELS),
    ],
)
def test_what_nobody_can_learn_from_is_named_with_its_reason(track: ObjectTrack, reason: str) -> None:
    fine = ObjectTrack(2, (FULL,), boxes=((0.0, 0.0, 3.0, 2.0),))
    expressions = (Expression("0", "fine", (2,)), Expression("1", "it", (1,)))
    assert row_info(record(fine, track, expressions=expressions, frames=1)).untrainable == {1: reason}


def test_without_truth_nothing_is_for_training() -> None:
    expressions = (Expression("0", "it"), Expression("1", "that"))
    assert row_info(record(expressions=expressions, frames=4)).untrainable == {0: WITHHELD, 1: WITHHELD}


def test_an_object_without_pixels_at_the_asked_frames_is_not_for_training() -> None:
    track = ObjectTrack(1, (FULL, EMPTY, EMPTY))
    asked = Expression("0", "it", (1,), frames=(1, 2))
    whole = record(track, expressions=(asked, replace(asked, id="1", frames=None)), frames=3)
    assert row_info(whole).untrainable == {0: NO_PIXELS}


def test_a_box_without_area_in_a_video_still_has_a_mask_to_learn_from() -> None:
    track = ObjectTrack(1, (FULL, FULL), boxes=((0.0, 0.0, 0.0, 0.0), None))
    assert row_info(record(track, expressions=(Expression("0", "it", (1,)),), frames=2)).untrainable is None
