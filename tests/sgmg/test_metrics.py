import math

import numpy as np
import pytest

from sgmg.masks import dilate_disk, mask_boundary
from sgmg.metrics import (
    FrameStatistics,
    TrackScores,
    contour_accuracy,
    frame_statistics,
    outline,
    region_similarity,
    score_track,
    total_scores,
)


def blobs(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """Smooth objects that touch the frame here and there."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((frames, -(-height // 8), -(-width // 8))) < 0.4
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def plain_f(result: np.ndarray, truth: np.ndarray) -> float:
    """F as the text has it, on whole frames."""
    radius = math.ceil(0.008 * math.hypot(*result.shape))
    drawn, wanted = mask_boundary(result), mask_boundary(truth)
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = (drawn & dilate_disk(wanted, radius)).sum() / drawn.sum()
    recall = (wanted & dilate_disk(drawn, radius)).sum() / wanted.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def empty() -> np.ndarray:
    return np.zeros((1, 20, 30), dtype=np.bool_)


def square(top: int, left: int, side: int = 5) -> np.ndarray:
    mask = empty()
    mask[:, top : top + side, left : left + side] = True
    return mask


def test_j_is_intersection_over_union() -> None:
    assert region_similarity(square(2, 2), square(2, 4)).tolist() == [15 / 35]


def test_empty_against_empty_is_perfect_and_against_anything_else_zero() -> None:
    for measure in (region_similarity, contour_accuracy):
        assert measure(empty(), empty()).tolist() == [1.0]
        assert measure(empty(), square(2, 2)).tolist() == [0.0]
        assert measure(square(2, 2), empty()).tolist() == [0.0]


def test_void_pixels_count_in_neither_measure() -> None:
    result, truth = square(2, 2), square(2, 2)
    result[:, 12:16, 20:25] = True
    void = square(10, 18, side=10)
    assert region_similarity(result, truth)[0] < 1
    assert contour_accuracy(result, truth)[0] < 1
    assert region_similarity(result, truth, void).tolist() == [1.0]
    assert contour_accuracy(result, truth, void).tolist() == [1.0]


def test_f_forgives_what_lies_within_the_tolerance() -> None:
    assert contour_accuracy(square(5, 5), square(5, 6)).tolist() == [1.0]
    assert contour_accuracy(square(5, 5), square(5, 8))[0] < 1.0
    assert contour_accuracy(square(0, 0), square(12, 20)).tolist() == [0.0]


@pytest.mark.parametrize(("height", "width"), [(24, 40), (97, 131), (240, 427)])
def test_f_in_windows_is_f_of_whole_frames(height: int, width: int) -> None:
    results, truths = blobs(1, 6, height, width), blobs(2, 6, height, width)
    results[0] = truths[1] = False
    truths[2, : height // 2] = False
    expected = [plain_f(result, truth) for result, truth in zip(results, truths, strict=True)]
    assert contour_accuracy(results, truths).tolist() == expected


def test_an_outline_works_in_a_window_round_its_object() -> None:
    one = outline(np.pad(square(5, 5)[0], ((100, 200), (300, 400))))
    assert one.boundary.size < 1000
    assert one.length == 4 * 5


def test_masks_of_different_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 20, 29\).*\(1, 20, 30\)"):
        region_similarity(empty(), empty()[:, :, 1:])
    with pytest.raises(ValueError, match="Void masks"):
        contour_accuracy(empty(), empty(), empty().repeat(2, axis=0))


def test_masks_that_are_not_boolean_are_refused() -> None:
    with pytest.raises(TypeError):
        region_similarity(empty(), empty().astype(np.uint8))


def test_decay_compares_quarters_that_share_a_frame() -> None:
    values = np.arange(9) / 10
    assert frame_statistics(values).decay == pytest.approx((0 + 0.1 + 0.2) / 3 - (0.6 + 0.7 + 0.8) / 3)


def test_decay_is_right_for_more_frames_than_8_bits_count() -> None:
    values = np.linspace(1, 0, 401)
    assert frame_statistics(values).decay == pytest.approx(0.75)


def test_a_single_frame_does_not_decay() -> None:
    assert frame_statistics(np.array([0.7])) == FrameStatistics(mean=0.7, recall=1.0, decay=0.0)


def test_half_is_not_recalled() -> None:
    assert frame_statistics(np.array([0.5, 0.51])).recall == 0.5


def test_nan_is_left_out_of_means() -> None:
    assert frame_statistics(np.array([1.0, np.nan, 0.5, 0.0, 0.0])).mean == 0.375


def test_a_track_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        frame_statistics(np.zeros(0))


def test_a_track_is_scored_by_its_frames() -> None:
    results, truths = blobs(3, 5, 40, 60), blobs(4, 5, 40, 60)
    track = score_track("surf/0", results, truths)
    assert track.name == "surf/0"
    assert track.j == frame_statistics(region_similarity(results, truths))
    assert track.f == frame_statistics(contour_accuracy(results, truths))


def test_totals_are_means_over_tracks_in_any_order() -> None:
    one = TrackScores("a", FrameStatistics(0.5, 1.0, 0.25), FrameStatistics(0.25, 0.5, 0.0))
    other = TrackScores("b", FrameStatistics(1.0, 0.5, -0.25), FrameStatistics(0.75, 1.0, 0.5))
    total = total_scores(iter([one, other]))
    assert total == total_scores([other, one])
    assert total.tracks == 2
    assert total.j == FrameStatistics(0.75, 0.75, 0.0)
    assert total.f == FrameStatistics(0.5, 0.75, 0.25)
    assert total.jf_mean == 0.625


def test_totals_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no tracks"):
        total_scores([])
