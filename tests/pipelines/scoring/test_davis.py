import io
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.predictions import Prediction
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.davis import score_davis, truth_maps
from pipelines.scoring.score import figures, score_video
from pipelines.scoring.truth import VideoTruth
from sgmg.davis import score_unsupervised
from sgmg.masks import masks_to_rles

SIZE, T = (24, 32), 5


def maps(shift: int = 0) -> np.ndarray:
    found = np.zeros((T, *SIZE), dtype=np.uint8)
    found[:, 2:10, 2 + shift : 12 + shift] = 1
    found[:, 14:22, 12 + shift : 26 + shift] = 2
    return found


def truth(void: bool = False) -> VideoTruth:
    tracks = {number: ObjectTrack(number, tuple(masks_to_rles(maps() == number))) for number in (1, 2)}
    if void:
        area = np.zeros((T, *SIZE), dtype=np.bool_)
        area[:, :, 28:] = True
        tracks[255] = ObjectTrack(255, tuple(masks_to_rles(area)))
    expressions = tuple(
        Expression(str(4 * place + annotator), f"object {place}, {annotator}", (place + 1,), annotator=annotator)
        for place in range(2)
        for annotator in range(4)
    )
    return VideoTruth("ref-davis17", "valid", "surf", SIZE, tuple("abcde"), tracks, expressions)


def png(ids: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "png")
    return buffer.getvalue()


def merged(perfect: Any, shifts: tuple[int, ...]) -> list[Prediction]:
    """All predictions; the row of an annotator's first object holds its maps, shifted so many columns."""
    return [
        replace(one, merged=tuple(png(frame) for frame in maps(shifts[one.annotator or 0])))
        if int(one.expression) < 4
        else one
        for one in perfect(truth())
    ]


def test_the_figure_is_the_mean_over_annotators(perfect: Any) -> None:
    rows = score_video(truth(), merged(perfect, (0, 2, 4, 6)))
    found = figures(rows)
    alone = [found[f"J&F annotator {who}"] for who in range(4)]
    assert alone[0] == 1.0
    assert alone == sorted(alone, reverse=True)
    assert found["J&F"] == pytest.approx(np.mean(alone))
    assert found["strict-id J&F"] == pytest.approx(found["J&F"])


def test_rows_name_the_expression_of_the_object_that_was_found(perfect: Any) -> None:
    rows = [row for row in score_davis(truth(), merged(perfect, (0,) * 4)) if row.protocol == "unsupervised"]
    assert [(row.annotator, row.expression, row.truth_id) for row in rows[:4]] == [
        (0, "0", 1),
        (0, "4", 2),
        (1, "1", 1),
        (1, "5", 2),
    ]
    assert rows[1].text == "object 1, 0"


def test_void_pixels_are_nobodys(perfect: Any) -> None:
    predictions = merged(perfect, (2, 2, 2, 2))
    rows = score_davis(truth(void=True), predictions)
    expected = score_unsupervised("surf", maps(2), truth_maps(truth(void=True)))
    assert rows[0].j == expected[0].j.mean
    wrong = maps()
    wrong[:, 12:24, 28:] = 1
    spilled = [replace(one, merged=tuple(map(png, wrong))) if one.merged else one for one in predictions]
    assert score_davis(truth(void=True), spilled)[0].j == 1.0
    assert score_davis(truth(), spilled)[0].j < 1.0


def test_maps_that_are_not_there_are_told_and_can_count_as_empty(perfect: Any) -> None:
    predictions = merged(perfect, (0, 0, 0, 0))
    without = [replace(one, merged=None) if one.annotator == 2 else one for one in predictions]
    with pytest.raises(ValueError, match="video surf, annotator 2"):
        score_video(truth(), without)
    rows = score_video(truth(), without, missing_as_empty=True)
    assert figures(rows)["J&F annotator 2"] == 0.0


def test_strict_id_is_left_out_aloud_where_ids_have_no_meaning(perfect: Any, caplog: Any) -> None:
    more = maps()
    more[:, :2, :2] = 3
    predictions = merged(perfect, (0, 0, 0, 0))
    more_objects = [
        replace(one, merged=tuple(map(png, more))) if one.merged and one.annotator == 1 else one for one in predictions
    ]
    with caplog.at_level(logging.WARNING):
        found = figures(score_video(truth(), more_objects))
    assert not [name for name in found if name.startswith("strict-id")]
    assert "strict-id is left out: results of 1 sequences (the first is surf)" in caplog.text


def test_a_map_of_another_size_is_refused(perfect: Any) -> None:
    predictions = merged(perfect, (0, 0, 0, 0))
    small = [replace(one, merged=(png(maps()[0, :10]),) * T) if one.merged else one for one in predictions]
    with pytest.raises(ValueError, match=r"merged map of frame a: the mask has height, width \(10, 32\)"):
        score_video(truth(), small)


def test_a_damaged_map_is_refused(perfect: Any) -> None:
    predictions = merged(perfect, (0, 0, 0, 0))
    damaged = [replace(one, merged=(b"no png",) * T) if one.merged else one for one in predictions]
    with pytest.raises(ValueError, match="surf, merged map of frame a: the file is no image"):
        score_video(truth(), damaged)
