from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.exports.report.gather import COLUMNS, gather
from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack
from sgmg.masks import masks_to_rles

Predict = Callable[..., Prediction]
Save = Callable[..., Folder]


def track(there: np.ndarray, scores: np.ndarray) -> QueryTrack:
    masks = np.zeros((len(there), 6, 9), np.bool_)
    masks[there.astype(bool), 1:3, 2:5] = True
    return QueryTrack(tuple(masks_to_rles(masks)), ((0.0, 0.0, 1.0, 1.0),) * len(there), tuple(scores.tolist()))


def said(predict: Predict, there: np.ndarray, scores: np.ndarray, start: int = 0, **values: Any) -> Prediction:
    """A row of frames at 10 a second, of a video of the name /in/a.mp4."""
    t = len(there)
    video = {
        "source": "/in/a.mp4",
        "frame_names": tuple(f"{place:05d}" for place in range(start, start + t)),
        "timestamps": tuple((start + place) / 10 for place in range(t)),
        "queries": (track(there, scores),),
        "score": float(scores.mean()),
        "start_frame": start,
        "fps": 10.0,
    }
    return predict("a", values.pop("expression", "0"), np.zeros((t, 6, 9), np.bool_), **(video | values))


def test_a_short_video_is_told_frame_by_frame(predict: Predict, save: Save) -> None:
    row = said(predict, np.array([0, 1, 1, 0]), np.array([0.125, 0.5, 1.0, 0.25]), text="the cat", note="odd")
    (video,) = gather(save({"v.parquet": [row]}))
    assert (video.video, video.name, video.size, video.frames) == ("a", "a.mp4", (6, 9), 4)
    assert video.seconds == pytest.approx(0.4)
    (expression,) = video.expressions
    assert (expression.text, expression.status, expression.note) == ("the cat", "ok", "odd")
    assert (expression.score, expression.peak, expression.visible) == (pytest.approx(0.46875), 1.0, 0.5)
    assert expression.scores == (12, 50, 100, 25)
    assert expression.masked == "0110"
    assert expression.best is not None
    assert (expression.best.frame, expression.best.rle) == ("00002", row.queries[0].rle[2])


def test_segments_of_a_long_video_are_one_curve_whatever_order_they_come_in(predict: Predict, save: Save) -> None:
    there, scores = np.zeros(2400), np.full(2400, 0.25)
    there[600:1200], scores[600:1200] = 1, 0.75
    rows = [
        said(predict, there[at : at + 800], scores[at : at + 800], at, segment=number, status=status, note=note)
        for number, (at, status, note) in enumerate([(0, "ok", ""), (800, "ok", "b"), (1600, "absent", "c")])
    ]
    (video,) = gather(save({"z.parquet": rows[:1], "a.parquet": rows[1:]}, row_group_size=1))
    (expression,) = video.expressions
    assert video.frames == 2400
    assert video.seconds == pytest.approx(240)
    assert (expression.status, expression.note, expression.visible) == ("ok", "b; c", 0.25)
    assert expression.score == pytest.approx(0.375)
    assert len(expression.scores) == len(expression.masked) == COLUMNS == 80
    assert expression.masked == "0" * 20 + "1" * 20 + "0" * 40
    assert expression.scores == (25,) * 20 + (75,) * 20 + (25,) * 40
    assert video.first_frame == "00000"


def test_a_gap_goes_on_with_what_was_before_it(predict: Predict, save: Save) -> None:
    times = (0.0, 0.1, 0.2, 3.0, 3.1)
    row = said(predict, np.array([1, 1, 1, 0, 0]), np.array([1, 1, 1, 0.5, 0.5]), timestamps=times)
    (video,) = gather(save({"v.parquet": [row]}))
    assert video.expressions[0].masked == "11100"
    assert video.expressions[0].scores == (100, 100, 100, 50, 50)


def test_a_video_without_times_has_them_evenly(predict: Predict, save: Save) -> None:
    row = said(predict, np.ones(20), np.ones(20), timestamps=None)
    (video,) = gather(save({"v.parquet": [row]}))
    assert video.seconds == pytest.approx(2.0)


def test_videos_come_by_name_and_expressions_as_people_count(predict: Predict, save: Save) -> None:
    rows = [
        predict("v2", id, np.zeros((1, 6, 9), np.bool_), source="/y/b.mp4", frame_names=("00000",), status="absent")
        for id in ("10", "9")
    ]
    rows += [predict("v1", "0", np.zeros((1, 6, 9), np.bool_), source=f"/{path}", frame_names=("0",)) for path in ["A"]]
    first, second = gather(save({"v.parquet": rows}))
    assert (first.name, second.name) == ("A", "b.mp4")
    assert [expression.expression for expression in second.expressions] == ["9", "10"]
    assert second.expressions[0].best is None
    assert second.expressions[0].masked == "0"


def test_what_is_still_being_written_is_passed_over_and_damage_is_named(predict: Predict, save: Save) -> None:
    out = save({"v.parquet": [said(predict, np.ones(1), np.ones(1))]})
    out.write("predictions/.unfinished-1-w.parquet", b"half")
    assert len(gather(out)) == 1
    out.write("predictions/w.parquet", b"half")
    with pytest.raises(ValueError, match=r"w\.parquet is damaged or no Parquet file .* or jobs/annotate\.py"):
        gather(out)


def test_no_predictions_are_no_videos(tmp_path: Any) -> None:
    assert gather(Folder(str(tmp_path))) == ()
