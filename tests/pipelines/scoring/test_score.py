import pickle
from dataclasses import replace

import numpy as np
import pytest

from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.score import (
    SCORING_PROTOCOLS,
    MissingPredictions,
    TrackRow,
    figures,
    metric_name,
    score_video,
    scoring_protocol,
)
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import masks_to_rles, rles_to_masks
from sgmg.metrics import contour_accuracy, region_similarity

SIZE = (40, 60)
NAMES = ("00000", "00005", "00010", "00015")


def moving(top: int, left: int) -> tuple[str, ...]:
    masks = np.zeros((4, *SIZE), dtype=np.bool_)
    for frame, mask in enumerate(masks):
        mask[top : top + 12, left + 3 * frame : left + 3 * frame + 16] = True
    return tuple(masks_to_rles(masks))


CAT, DOG = ObjectTrack(1, moving(2, 3)), ObjectTrack(2, moving(20, 30))
TRUTH = VideoTruth(
    "mevis",
    "valid_u",
    "pets",
    SIZE,
    NAMES,
    {1: CAT, 2: DOG},
    (Expression("0", "the cat", (1,)), Expression("1", "the dog", (2,)), Expression("2", "the animals", (1, 2))),
)


def said(expression: str, rle: tuple[str, ...], names: tuple[str, ...] = NAMES) -> Prediction:
    t = len(names)
    return Prediction(
        dataset="mevis",
        split="valid_u",
        video="pets",
        expression=expression,
        text="",
        width=SIZE[1],
        height=SIZE[0],
        frame_names=names,
        queries=(QueryTrack(rle, ((0.0, 0.0, 0.0, 0.0),) * t, (0.5,) * t),),
        score=0.5,
        fingerprint="",
        source="",
        source_fingerprint="",
    )


BOTH = tuple(masks_to_rles(rles_to_masks(CAT.rle, SIZE) | rles_to_masks(DOG.rle, SIZE)))  # pyright: ignore[reportArgumentType]
PERFECT = [said("0", moving(2, 3)), said("1", moving(20, 30)), said("2", BOTH)]


def test_the_truth_of_several_objects_is_their_union() -> None:
    assert figures(score_video(TRUTH, PERFECT))["J&F"] == 1.0


def test_every_expression_has_the_scores_of_its_masks() -> None:
    shifted = moving(4, 6)
    (row, *_) = score_video(TRUTH, [said("0", shifted), *PERFECT[1:]])
    masks = [rles_to_masks(rle, SIZE) for rle in (shifted, moving(2, 3))]
    assert isinstance(row, TrackRow)
    assert (row.j, row.f) == pytest.approx((region_similarity(*masks).mean(), contour_accuracy(*masks).mean()))
    assert row.expression == "0"
    assert row.text == "the cat"


def test_figures_do_not_depend_on_who_counted_what() -> None:
    rows = score_video(TRUTH, [said("0", moving(4, 6)), *PERFECT[1:]])
    gathered = [pickle.loads(pickle.dumps(row)) for row in reversed(rows)]
    assert figures(gathered) == figures(rows)
    assert len(pickle.dumps(rows[0])) < 2000


def test_segments_are_joined_by_the_names_of_their_frames() -> None:
    parts = [said("0", moving(2, 3)[2:], NAMES[2:]), said("0", moving(2, 3)[:2], NAMES[:2])]
    assert score_video(TRUTH, [*parts, *PERFECT[1:]]) == score_video(TRUTH, PERFECT)


def test_frames_that_are_not_annotated_do_not_count() -> None:
    truth = replace(TRUTH, objects={1: replace(CAT, rle=(None, *CAT.rle[1:])), 2: DOG})
    wrong_there = said("0", (moving(20, 3)[0], *moving(2, 3)[1:]))
    (row, *_) = score_video(truth, [wrong_there, *PERFECT[1:]])
    assert isinstance(row, TrackRow)
    assert (row.j, row.frames) == (1.0, 3)


def test_expressions_without_truth_are_not_scored() -> None:
    truth = replace(TRUTH, expressions=(TRUTH.expressions[0], Expression("1", "withheld")))
    assert [row.expression for row in score_video(truth, PERFECT)] == ["0"]


def test_what_is_not_predicted_is_told() -> None:
    partly = said("1", moving(20, 30)[:3], NAMES[:3])
    with pytest.raises(MissingPredictions, match="2 things") as error:
        score_video(TRUTH, [PERFECT[0], partly])
    assert error.value.missing == ("video pets, expression 1, frame 00015", "video pets, expression 2")


def test_only_the_first_ten_missing_are_written_out() -> None:
    error = MissingPredictions([f"video {number}" for number in range(12)])
    assert "video 9; and 2 more" in str(error)
    assert pickle.loads(pickle.dumps(error)).missing == error.missing


def test_what_is_not_predicted_counts_as_empty_where_that_is_asked_for() -> None:
    rows = score_video(TRUTH, PERFECT[:1], missing_as_empty=True)
    assert [row.figure for row in rows] == [1.0, 0.0, 0.0]


def test_predictions_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(20, 30\), the truth of \(40, 60\)"):
        score_video(TRUTH, [replace(PERFECT[0], height=20, width=30), *PERFECT[1:]])


def test_a_truth_of_another_size_than_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match=r"runs of 2400 pixels, but .* has 600"):
        score_video(
            replace(TRUTH, size=(20, 30)),
            [replace(one, height=20, width=30) for one in PERFECT],
            SCORING_PROTOCOLS["mevis"],
        )


def test_an_expression_predicted_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="predicted twice at frame 00000"):
        score_video(TRUTH, [*PERFECT, PERFECT[0]])


def test_a_dataset_without_protocol_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'videos'.*ref-youtube-vos, revos, mevis"):
        scoring_protocol("videos")


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no figures"):
        figures([])


def test_mlflow_takes_the_names_of_all_figures() -> None:
    names = [metric_name(name) for name in figures(score_video(TRUTH, PERFECT))]
    assert names[0] == "J_and_F"
    assert not set("".join(names)) & set("&@")
