"""Doubtful answers come first, with the reason."""

import csv
import io

import numpy as np
import pytest

from pipelines.annotate.review import COLUMNS, Doubt, _flickers, _jumps, _Signs, by_doubt, review_csv
from pipelines.predictions import Prediction, QueryTrack
from sgmg.masks import mask_to_rle

SIZE = (8, 10)


def mask(area: int) -> str:
    flat = np.zeros(SIZE[0] * SIZE[1], np.bool_)
    flat[:area] = True
    return mask_to_rle(flat.reshape(SIZE))


def doubt(areas: list[int], scores: list[float] | float = 0.9, agreement: float | None = None) -> Doubt:
    """The signs of a track with these areas, written in two segments."""
    t = len(areas)
    said = scores if isinstance(scores, list) else [scores] * t
    found: _Signs | None = None
    for first, last in ((0, t // 2), (t // 2, t)):
        row = Prediction(
            "videos", "", "v-1", "e", "the dog", SIZE[1], SIZE[0], tuple(f"{at:05d}" for at in range(first, last)),
            (QueryTrack(
                tuple(map(mask, areas[first:last])), ((0.0, 0.0, 1.0, 1.0),) * (last - first), tuple(said[first:last])
            ),),
            0.5, "f", "/v.mp4", "x", start_frame=first, timestamps=tuple(at / 10 for at in range(first, last)),
        )  # fmt: skip
        found = found or _Signs(row)
        found.add(row)
    assert found is not None
    return found.doubt(agreement)


def test_a_steady_track_is_not_doubted() -> None:
    steady = doubt([20] * 10, 0.9, 0.95)
    assert (steady.doubt, steady.reasons, steady.flicker, steady.jumps) == (0, [], 0, 0)
    assert doubt([0, 0, 0, 0, 0, 20, 20, 20, 20, 20, 20]).doubt == 0, "an object may come later"


def test_each_sign_is_named_and_adds_to_the_doubt() -> None:
    low = doubt([20] * 10, [0.9] * 5 + [0.1] + [0.3] * 4)
    assert low.reasons == ["score 0.58"]
    assert (low.frame, low.time) == ("00005", 0.5)
    apart = doubt([20] * 10, agreement=0.2)
    assert apart.reasons == ["windows agree by 0.20"]
    flickering = doubt([20, 20, 20, 20, 0, 20, 20, 20, 20, 20])
    assert (flickering.flicker, flickering.reasons, flickering.frame) == (1, ["comes and goes 1 times"], "00004")
    jumping = doubt([20, 20, 20, 60, 60, 60, 60, 60, 20, 20])
    assert (jumping.jumps, jumping.reasons, jumping.frame) == (2, ["area jumps 2 times"], "00003")
    worst = doubt([20, 20, 60, 0, 20, 0, 20, 60, 20, 20], 0.1, 0.0)
    assert len(worst.reasons) == 4
    assert worst.doubt > max(one.doubt for one in (low, apart, flickering, jumping)) > 0


def test_runs_at_the_ends_do_not_flicker() -> None:
    assert _flickers(np.array([1, 0, 0, 0, 0, 1], np.bool_)) == []
    assert _flickers(np.array([0, 0, 1, 1, 0, 0], np.bool_)) == [2]
    assert _jumps(np.array([5.0, 0.0, 50.0, 51.0, 20.0])) == [4], "what is gone does not jump"


def test_an_absent_object_has_the_score_of_all_frames() -> None:
    absent = doubt([0] * 6, 0.125)
    assert absent.score == pytest.approx(0.125)
    assert absent.frame == "00000"


def test_the_table_has_the_worst_answer_first_and_room_for_a_verdict() -> None:
    doubts = [doubt([20] * 4), doubt([20] * 4, 0.1), doubt([20] * 4, agreement=0.5)]
    assert [one.score for one in by_doubt(doubts)] == pytest.approx([0.1, 0.9, 0.9])
    rows = list(csv.DictReader(io.StringIO(review_csv(doubts).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["why"] == "score 0.10"
    assert rows[1]["agreement"] == "0.500"
    assert {row["verdict"] for row in rows} == {""}
    kept = review_csv(doubts, {(doubts[1].video, doubts[1].expression): "rejected"})
    assert next(csv.DictReader(io.StringIO(kept.decode())))["verdict"] == "rejected"
