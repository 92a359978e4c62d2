"""In which order the samples of a lane come."""

import numpy as np
import pytest

from pipelines.clips.lane_order import APART, AT_ONCE, LaneRows, lane_order, most_samples


def ordered(*counts: int, seed: int = 0, totals: list[int] | None = None, before: int = 0) -> np.ndarray:
    """The row of the sample of each step."""
    held = np.array(counts)
    rows = LaneRows(held, held if totals is None else np.array(totals), before)
    order = lane_order(rows, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(order), np.arange(held.sum()))
    return np.repeat(np.arange(len(held)), held)[order]


def gaps(rows: np.ndarray, row: int) -> np.ndarray:
    """The steps between the samples of a row."""
    return np.diff(np.flatnonzero(rows == row))


def test_rows_take_turns_and_are_through_after_as_many_lines_as_they_have_samples() -> None:
    counts = np.random.default_rng(0).integers(1, 9, 600)
    rows = ordered(*counts)
    for row, count in enumerate(counts):
        apart = gaps(rows, row)
        assert len(apart) == count - 1
        assert np.all(apart >= APART)
    within = [gaps(rows, row).max() for row, count in enumerate(counts) if count > 1]
    assert np.mean(np.array(within) < AT_ONCE + 8) > 0.9, "but for those that reach from one column to the next"


def test_neighbours_in_the_lane_are_neighbours_in_time() -> None:
    counts = np.random.default_rng(0).integers(1, 9, 2_000)
    rows = ordered(*counts)
    times = np.array([np.median(np.flatnonzero(rows == row)) for row in range(len(counts))])
    places = np.cumsum(counts) - counts / 2
    assert np.median(np.abs(times - places)) < AT_ONCE * 8


@pytest.mark.parametrize("most", [1, 4, 30])
@pytest.mark.parametrize("slots", [700, 1_400, 5_000])
def test_all_rows_stand_apart_if_none_has_too_many_samples(most: int, slots: int) -> None:
    most = min(most, most_samples(slots))
    counts = np.random.default_rng(most).integers(1, most, 9 * slots // most, endpoint=True)
    counts = counts[: np.searchsorted(np.cumsum(counts), slots, side="right") + 1]
    rows = ordered(*counts)
    assert all(np.all(gaps(rows, row) >= APART) for row in range(len(counts)))


def test_a_row_that_is_longer_than_a_column_is_spread_over_the_lane_and_the_others_flow_around_it() -> None:
    rows = ordered(*[3] * 500, 300, *[3] * 500)
    apart = gaps(rows, 500)
    assert (apart.min(), apart.max()) == (11, 11)
    assert all(np.all(gaps(rows, row) >= APART) for row in range(1_001) if row != 500)


def test_rows_of_a_small_lane_come_evenly() -> None:
    rows = ordered(6, 6, 6)
    assert all(set(gaps(rows, row)) == {3} for row in range(3))
    assert ordered(4).tolist() == [0] * 4


def test_the_samples_of_a_row_come_in_random_order() -> None:
    rows = LaneRows(np.array([40, 40]), np.array([40, 40]), 0)
    order = lane_order(rows, np.random.default_rng(0))
    first = order[order < 40]
    assert sorted(first) != list(first)


@pytest.mark.parametrize("share", [1, 4, 9, 17])
def test_a_row_that_two_lanes_share_has_its_turns_evenly_over_both(share: int) -> None:
    lane = [3] * 400
    before = ordered(*lane, share, totals=[*lane, 18])
    after = ordered(18 - share, *lane, totals=[18, *lane], before=share, seed=1)
    steps = np.sort(np.concatenate([np.flatnonzero(before == 400), np.flatnonzero(after == 0)]))
    assert len(steps) == 18
    assert np.diff(steps).min() >= APART
    assert np.diff(steps).max() < 2 * 1_200 / 18


def test_a_row_that_fills_whole_lanes_is_in_each_of_them() -> None:
    assert ordered(5, totals=[20], before=7).tolist() == [0] * 5


def test_another_seed_is_another_order() -> None:
    counts = [4] * 300
    assert len({ordered(*counts, seed=seed).tobytes() for seed in range(3)}) == 3
    np.testing.assert_array_equal(ordered(*counts), ordered(*counts))
