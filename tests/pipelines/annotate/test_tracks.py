"""Windows become tracks: an object keeps its identity from window to window, whatever scores say."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipelines.annotate.tracks import JoinSettings, agreement, best_query, join_windows
from pipelines.annotate.window_rows import WindowRow
from pipelines.predictions import Prediction, QueryTrack
from sgmg.masks import mask_to_rle, rle_to_mask

H, W = 12, 40
WINDOW, OVERLAP = 6, 2
RULES = JoinSettings(min_score=0.3, fingerprint="f")
EMPTY = mask_to_rle(np.zeros((H, W), np.bool_))


def ball(x: float, y: int) -> str:
    mask = np.zeros((H, W), np.bool_)
    mask[y : y + 4, max(0, round(x)) : round(x) + 4] = True
    return mask_to_rle(mask)


def enlarged(rle: str, scale: int) -> str:
    """Every pixel of a mask `scale` times as high and as wide."""
    return mask_to_rle(rle_to_mask(rle, (H, W)).repeat(scale, axis=0).repeat(scale, axis=1))


def track(rles: Sequence[str], scores: Sequence[float] | float) -> QueryTrack:
    said = tuple(scores) if isinstance(scores, Sequence) else (scores,) * len(rles)
    return QueryTrack(tuple(rles), ((1.0, 1.0, 2.0, 2.0),) * len(rles), said)


def window(
    first: int, queries: Sequence[QueryTrack], note: str = "", expression: str = "a", scale: int = 1
) -> WindowRow:
    """A window whose frames are `scale` times as large as the model sees them; the best query is kept at that size."""
    t = len(queries[0].rle)
    best = int(np.argmax([np.mean(query.scores) for query in queries]))
    kept = replace(queries[best], rle=tuple(enlarged(rle, scale) for rle in queries[best].rle))
    row = Prediction(
        dataset="videos",
        split="",
        video="v",
        expression=expression,
        text="the ball",
        width=scale * W,
        height=scale * H,
        frame_names=tuple(f"{place:05d}" for place in range(first, first + t)),
        queries=(kept,),
        score=0.5,
        fingerprint="window",
        source="/v.mp4",
        source_fingerprint="x",
        status="partial" if note else "ok",
        note=note,
        timestamps=tuple(place / 10 for place in range(first, first + t)),
    )
    return WindowRow(row, tuple(queries), (H, W), best)


def crossing(t: int, shuffled: bool = True, scale: int = 1) -> Iterator[list[WindowRow]]:
    """Two balls that change sides: one above to the right, one below to the left; every window numbers them anew."""
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, t - OVERLAP, WINDOW - OVERLAP)):
        places = range(first, min(first + WINDOW, t))
        above, below = [ball(place, 1) for place in places], [ball(t - place, 7) for place in places]
        # The sentence means the upper one; from the third window on, the lower one looks likelier.
        scores = (0.9, 0.6) if number < 2 else (0.5, 0.8)
        queries = [track(above, scores[0]), track(below, scores[1]), track([EMPTY] * len(above), 0.2)]
        order = rng.permutation(3) if shuffled else range(3)
        yield [window(first, [queries[at] for at in order], scale=scale)]


def test_an_object_keeps_its_identity_where_another_one_comes_to_look_likelier() -> None:
    ((row,),) = join_windows(crossing(30), RULES)
    assert row.queries[0].rle == tuple(ball(place, 1) for place in range(30))
    assert row.frame_names == tuple(f"{place:05d}" for place in range(30))
    assert row.timestamps == tuple(place / 10 for place in range(30))
    assert (row.status, row.note, row.fingerprint, len(row.queries)) == ("ok", "", "f", 1)


def test_a_query_that_was_not_the_best_is_drawn_from_its_coarse_masks() -> None:
    ((row,),) = join_windows(crossing(30, scale=3), RULES)
    for place, rle in enumerate(row.queries[0].rle):
        found, wanted = (rle_to_mask(one, (3 * H, 3 * W)) for one in (rle, enlarged(ball(place, 1), 3)))
        assert (found & wanted).sum() / (found | wanted).sum() > (0.9 if place > 9 else 0.999)


def test_windows_without_coarse_masks_choose_by_score_alone() -> None:
    independent = ([WindowRow(one.row) for one in rows] for rows in crossing(30))
    ((row,),) = join_windows(independent, RULES)
    assert row.queries[0].rle[:10] == tuple(ball(place, 1) for place in range(10))
    assert row.queries[0].rle[10:] == tuple(ball(30 - place, 7) for place in range(10, 30))


def test_agreement_is_the_mean_iou_over_frames_that_showed_something() -> None:
    same, half, none = ball(0, 0), mask_to_rle(rle_to_mask(ball(0, 0), (H, W)) & (np.arange(H) < 2)[:, None]), EMPTY
    found = window(0, [track([same] * 3, 0.5), track([half] * 3, 0.5), track([none] * 3, 0.5)])
    before = {"00000": same, "00001": EMPTY, "other": same}
    assert agreement(found, before).tolist() == [1.0, 0.5, 0.0]
    assert agreement(found, {"00000": EMPTY}).tolist() == [0.0, 0.0, 0.0]
    assert best_query(found, before) == 0


def test_a_window_without_shared_frames_chooses_by_score() -> None:
    above, below = track([ball(0, 1)] * 3, 0.5), track([ball(0, 7)] * 3, 0.8)
    ((row,),) = join_windows([[window(0, [above])], [window(3, [above, below])]], RULES)
    assert row.queries[0].rle == (ball(0, 1),) * 3 + (ball(0, 7),) * 3


def test_an_object_that_was_gone_is_taken_up_again_by_score() -> None:
    gone = track([ball(0, 7)] * 6, 0.1)
    back = [track([ball(0, 7)] * 6, 0.4), track([ball(5, 1)] * 6, 0.9)]
    ((row,),) = join_windows([[window(0, [gone])], [window(4, back)]], RULES)
    assert row.queries[0].rle == (EMPTY,) * 6 + (ball(5, 1),) * 4


def test_a_frame_below_the_score_is_empty_and_keeps_its_score() -> None:
    rles = [ball(0, 1)] * 4
    ((row,),) = join_windows([[window(0, [track(rles, [0.9, 0.29, 0.3, 0.0])])]], RULES)
    assert row.queries[0].rle == (rles[0], EMPTY, rles[0], EMPTY)
    assert row.queries[0].scores == (0.9, 0.29, 0.3, 0.0)
    assert row.queries[0].boxes[1] == (0.0, 0.0, 0.0, 0.0)
    assert row.status == "ok"
    assert row.score == pytest.approx(1.49 / 4)


def test_an_object_that_is_nowhere_is_absent_and_the_note_says_so() -> None:
    ((low,),) = join_windows([[window(0, [track([ball(0, 1)] * 4, [0.1, 0.2, 0.25, 0.1])])]], RULES)
    assert (low.status, set(low.queries[0].rle)) == ("absent", {EMPTY})
    assert low.note == "not in this video: no frame scores 0.3 or more, the best 0.25"
    ((empty,),) = join_windows([[window(0, [track([EMPTY] * 4, 0.8)])]], RULES)
    assert (empty.status, empty.note) == (
        "absent",
        "not in this video: all masks are empty, though a frame scores 0.80",
    )


def test_frames_of_an_overlap_come_once_from_the_window_before() -> None:
    first, second = track([ball(0, 1)] * 6, 0.9), track([ball(1, 1)] * 6, 0.8)
    ((row,),) = join_windows([[window(0, [first])], [window(4, [second])]], RULES)
    assert row.queries[0].rle == (ball(0, 1),) * 6 + (ball(1, 1),) * 4
    assert row.queries[0].scores == (0.9,) * 6 + (0.8,) * 4


def test_rows_hold_so_many_frames_and_are_the_whole_cut_up() -> None:
    ((whole,),) = join_windows(crossing(30), RULES)
    parts = [row for (row,) in join_windows(crossing(30), RULES, length=8)]
    assert [(row.segment, row.start_frame, len(row.frame_names)) for row in parts] == [
        (0, 0, 8), (1, 8, 8), (2, 16, 8), (3, 24, 6),
    ]  # fmt: skip
    assert sum((row.queries[0].rle for row in parts), ()) == whole.queries[0].rle
    assert sum((row.timestamps or () for row in parts), ()) == whole.timestamps
    assert [len(row.frame_names) for (row,) in join_windows(crossing(30), RULES, length=15)] == [15, 15]


def test_damage_makes_its_own_row_partial_and_what_is_missing_the_last() -> None:
    rles = [ball(0, 1)] * 6
    windows = [
        [window(first, [track(rles, 0.9)], "2 frames are damaged" if first == 8 else "")] for first in (0, 4, 8, 12)
    ]
    parts = [row for (row,) in join_windows(windows, RULES, "10 to 20 s: it took too long", length=6)]
    assert [(row.status, row.note) for row in parts] == [
        ("ok", ""),
        ("partial", "2 frames are damaged"),
        ("partial", "10 to 20 s: it took too long"),
    ]


def test_what_is_remarked_stands_in_the_row_of_its_frames_and_makes_nothing_partial() -> None:
    rles = [ball(0, 1)] * 6
    remarks = {0: "another track", 8: "another size", 12: "another size"}
    windows = [[replace(window(first, [track(rles, 0.9)]), remark=remarks.get(first, ""))] for first in (0, 4, 8, 12)]
    parts = [row for (row,) in join_windows(windows, RULES, length=6)]
    assert [row.status for row in parts] == ["ok", "ok", "ok"]
    assert [row.note for row in parts] == ["another track", "another size", "another size"]
    ((whole,),) = join_windows(windows, RULES, "the end is gone")
    assert (whole.status, whole.note) == ("partial", "the end is gone; another track; another size")


def test_an_absence_is_told_once_at_the_end() -> None:
    windows = [[window(first, [track([ball(0, 1)] * 6, 0.1)])] for first in (0, 4, 8)]
    parts = [row for (row,) in join_windows(windows, RULES, length=6)]
    assert [row.status for row in parts] == ["absent", "absent", "absent"]
    assert [bool(row.note) for row in parts] == [False, False, True]


def test_sentences_go_their_own_ways() -> None:
    both = [track([ball(0, 1)] * 6, 0.9), track([ball(0, 7)] * 6, 0.5)]
    windows = [[window(first, both, expression="a"), window(first, both[::-1][:1], expression="b")] for first in (0, 4)]
    ((a, b),) = join_windows(windows, RULES)
    assert (a.expression, set(a.queries[0].rle)) == ("a", {ball(0, 1)})
    assert (b.expression, set(b.queries[0].rle)) == ("b", {ball(0, 7)})


def test_windows_are_taken_one_at_a_time() -> None:
    taken: list[int] = []

    def counted() -> Iterator[list[WindowRow]]:
        for number, found in enumerate(crossing(30)):
            taken.append(number)
            yield found

    rows = join_windows(counted(), RULES, length=8)
    next(rows)
    assert taken == [0, 1]


def test_nothing_comes_of_nothing() -> None:
    assert list(join_windows([], RULES)) == []
