import numpy as np
import pytest

from pipelines.drawing.overlay import (
    COLOURS,
    TRUTH_COLOUR,
    colour_of,
    draw_masks,
    frame_strip,
    legend,
    overlay,
    spotlight,
)

FRAME = np.full((60, 80, 3), 100, dtype=np.uint8)


def box(top: int, left: int) -> np.ndarray:
    mask = np.zeros(FRAME.shape[:2], dtype=np.bool_)
    mask[top : top + 20, left : left + 20] = True
    return mask


def test_each_expression_has_its_own_colour() -> None:
    drawn = draw_masks(FRAME, [box(5, 5), box(30, 50)])
    assert drawn[15, 15].tolist() == [(100 + one) // 2 for one in COLOURS[0]]
    assert drawn[40, 60].tolist() == [(100 + one) // 2 for one in COLOURS[1]]
    assert drawn[5, 5].tolist() == list(COLOURS[0])
    assert drawn[50, 10].tolist() == [100, 100, 100]
    assert len({colour_of(number) for number in range(1000)}) == 1000


def test_the_truth_is_an_outline_and_the_frame_is_left_alone() -> None:
    drawn = draw_masks(FRAME, [], [box(10, 10)])
    assert drawn[10, 20].tolist() == list(TRUTH_COLOUR)
    assert drawn[20, 20].tolist() == [100, 100, 100]
    assert (FRAME == 100).all()


def test_what_is_found_keeps_its_colours_in_the_light() -> None:
    drawn = spotlight(FRAME, box(5, 5), box(30, 50))
    assert drawn[15, 15].tolist() == [100, 100, 100]
    assert drawn[50, 10].tolist() == [45, 45, 45]
    assert drawn[5, 15].tolist() == list(colour_of(0))
    assert drawn[30, 60].tolist() == list(TRUTH_COLOUR)
    assert (FRAME == 100).all()
    with pytest.raises(ValueError, match="do not both fit"):
        spotlight(FRAME, box(5, 5)[1:], box(30, 50))


def test_sentences_stand_below_the_picture_in_the_colour_of_their_mask() -> None:
    drawn = overlay(FRAME, [box(5, 5), np.zeros_like(box(0, 0))], ["a cat", "a dog"])
    strip = drawn[60:]
    assert drawn.shape[1] == 80
    for number in range(2):
        assert (strip == np.array(colour_of(number))).all(axis=-1).any()


def test_a_legend_is_as_high_for_every_frame_of_a_video() -> None:
    first, again = (legend([("a cat " * 20, colour_of(0))], 80) for _ in range(2))
    assert first.shape == again.shape
    assert first.shape[0] > legend([("a cat", colour_of(0))], 80).shape[0]


def test_a_sheet_has_all_its_frames() -> None:
    frames = [np.full((60, 80, 3), value, dtype=np.uint8) for value in (10, 110, 210)]
    sheet = frame_strip(frames, [("three", None)], columns=2, width=160)
    assert sheet.shape[1] == 160
    assert [int(sheet[y, x, 0]) for y, x in ((30, 40), (30, 120), (90, 40), (90, 120))] == [10, 110, 210, 0]


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit a frame of"):
        draw_masks(FRAME, [np.zeros((6, 8), dtype=np.bool_)])
    with pytest.raises(ValueError, match="1 masks have 0 texts"):
        overlay(FRAME, [box(0, 0)], [])
