import numpy as np
import pytest

from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.baselines import box_everywhere, mean_box, whole_frame
from pipelines.scoring.score import figures, score_video
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import masks_to_rles

SIZE = (20, 40)


def truth(left: int, name: str = "v") -> VideoTruth:
    masks = np.zeros((3, *SIZE), dtype=np.bool_)
    masks[:2, 5:15, left : left + 10] = True  # not in the last frame
    track = ObjectTrack(1, tuple(masks_to_rles(masks)))
    expressions = (Expression("0", "it", (1,)), Expression("1", "withheld"))
    return VideoTruth("ref-youtube-vos", "train", name, SIZE, ("0", "1", "2"), {1: track}, expressions)


def test_the_mean_box_is_that_of_frames_that_show_something() -> None:
    assert mean_box([truth(0), truth(20)]) == pytest.approx((0.25, 0.25, 0.5, 0.75))


def test_a_box_in_the_right_place_beats_the_whole_frame() -> None:
    data = [truth(10)]
    box = [row for one in data for row in score_video(one, box_everywhere(one, mean_box(data), "mean box"))]
    whole = [row for one in data for row in score_video(one, whole_frame(one))]
    assert figures(box)["J"] == pytest.approx(2 / 3)
    assert figures(whole)["J"] == pytest.approx(2 / 3 * 100 / 800)
    assert figures(box)["J&F"] > figures(whole)["J&F"]


def test_baselines_speak_only_of_what_can_be_scored() -> None:
    assert [one.expression for one in whole_frame(truth(0))] == ["0"]


def test_there_is_no_mean_of_no_boxes() -> None:
    with pytest.raises(ValueError, match="No frame shows"):
        mean_box([])
