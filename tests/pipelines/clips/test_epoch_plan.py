"""Which sample is seen at which step, whatever the number of workers."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest

from manifests import in_groups, manifest_of, random_images
from pipelines.clips.epoch_plan import EpochPlan, lanes_of
from pipelines.clips.lane_order import APART, most_samples
from pipelines.clips.sample_table import SampleRef, SampleTable
from pipelines.manifest import Manifest, RowInfo

VIDEOS = manifest_of([[RowInfo(f"{g}{r}", frames=6 + g + r, expressions=1 + r) for r in range(3)] for g in range(7)])
IMAGES = manifest_of(
    [[RowInfo(f"i{g}{r}", 1, 4, untrainable={1: "crowd"}) for r in range(5)] for g in range(3)], "refcoco"
)
WINDOW = 8
"""Steps that are looked up at once; no number of steps of these plans is a multiple of it."""
ASKED = manifest_of([[RowInfo("v", frames=30, expressions=2, anchor_counts=(3, 1))]], "a2d-sentences")


def plan_of(
    manifests: tuple[Manifest, ...] = (VIDEOS, IMAGES), lengths: tuple[int, ...] = (5, 1), **changes: Any
) -> EpochPlan:
    settings: dict[str, Any] = {"seed": 3, "epoch": 0, "global_batch": 4, "shuffle_window": 8}
    return EpochPlan(SampleTable.of(manifests, lengths), **settings | changes)


def seen(plan: EpochPlan, world: int, start: int = 0, together: int = 1) -> list[list[SampleRef | None]]:
    """The global batch of every step from `start` on, as `world` ranks read it."""
    batches: dict[int, dict[int, SampleRef | None]] = {}
    for rank in range(world):
        lanes = lanes_of(rank, world, plan.global_batch, together)
        for step, lane, sample in chain.from_iterable(
            plan.window(lanes, first, first + WINDOW) for first in range(0, plan.steps, WINDOW)
        ):
            if step >= start:
                batches.setdefault(step, {})[lane] = sample
    return [[batch[lane] for lane in sorted(batch)] for _, batch in sorted(batches.items())]


def test_every_sample_comes_exactly_once_an_epoch() -> None:
    plan = plan_of()
    found = Counter(sample for batch in seen(plan, 1) for sample in batch if sample)
    expected = sum(row.expressions * -(-row.frames // 5) for s in VIDEOS.shards for g in s.row_groups for row in g)
    assert set(found.values()) == {1}
    assert len(found) == plan.samples == expected + 15 * 3


@pytest.mark.parametrize("world", [2, 3])
def test_another_number_of_workers_sees_the_same_steps(world: int) -> None:
    assert seen(plan_of(), world) == seen(plan_of(), 1)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
def test_the_rest_from_any_step_is_the_same_with_another_number_of_workers(before: int, after: int) -> None:
    plan = plan_of()
    for step in (0, 5, 8, plan.steps - 1):
        assert seen(plan, after, start=step) == seen(plan, before)[step:]


def test_ranks_never_disagree_on_the_number_of_steps_and_the_ragged_end_is_less_than_a_batch() -> None:
    plan = plan_of(global_batch=7)
    batches = seen(plan, 3)
    assert {len(batch) for batch in batches} == {7}
    assert len(batches) == plan.steps
    assert all(None not in batch for batch in batches[:-1])
    assert sum(sample is None for sample in batches[-1]) == plan.steps * 7 - plan.samples


def test_one_slot_is_what_its_window_holds() -> None:
    plan = plan_of()
    assert [[plan.slot(lane, step) for lane in range(4)] for step in range(plan.steps)] == seen(plan, 1)


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    orders = [seen(plan_of(epoch=epoch, seed=seed), 1) for epoch, seed in ((0, 3), (1, 3), (0, 4))]
    assert len({str(order) for order in orders}) == 3
    assert orders[0] == seen(plan_of(), 1)


def test_a_batch_holds_samples_of_different_row_groups() -> None:
    first = seen(plan_of(), 1)[0]
    assert len({(sample.part, sample.file) for sample in first if sample}) == 4


def test_a_window_passes_on_what_lies_close_together() -> None:
    plan = plan_of(shuffle_window=8)
    groups = {(s.part, s.file) for _, _, s in plan.window((0,), 0, 8) if s}
    assert len(groups) <= 3


def test_what_cannot_be_learned_from_is_never_drawn() -> None:
    assert all(
        sample.expression != 1 for batch in seen(plan_of(), 1) for sample in batch if sample and sample.part == 1
    )


def test_expressions_with_frames_of_their_own_are_asked_at_each_of_them() -> None:
    plan = plan_of(manifests=(ASKED,), lengths=(5,), global_batch=1)
    samples = [sample for batch in seen(plan, 1) for sample in batch if sample]
    assert sorted((s.expression, s.anchor) for s in samples) == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_lanes_that_share_a_forward_pass_stay_together() -> None:
    assert [lanes_of(rank, 3, 8, clips_per_pass=2) for rank in range(3)] == [(0, 1, 6, 7), (2, 3), (4, 5)]


def test_more_workers_than_forward_passes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 workers for 4 forward passes.*at most 4 workers"):
        lanes_of(0, 5, 8, clips_per_pass=2)
    with pytest.raises(ValueError, match=r"8 clips cannot be cut into forward passes of 3"):
        lanes_of(0, 1, 8, clips_per_pass=3)


def test_a_split_without_truth_is_refused() -> None:
    valid = manifest_of([[RowInfo("v", 20, 1, untrainable={0: "truth withheld"})]])
    with pytest.raises(ValueError, match=r"own train have 0 samples .* fewer than the 2 clips"):
        plan_of(manifests=(valid,), lengths=(5,), global_batch=2)


def test_a_large_plan_is_made_in_a_moment() -> None:
    rows = [[RowInfo(f"{g}-{r}", 1, 3) for r in range(80)] for g in range(400)]
    plan = plan_of(manifests=(manifest_of(rows),), lengths=(1,), global_batch=16, shuffle_window=128)
    assert plan.samples == 96_000
    assert len(list(plan.window(range(16), 3 * 128, 4 * 128))) == 16 * 128


def steps_apart(plan: EpochPlan) -> dict[tuple[int, str, int, int], int]:
    """The fewest steps between two samples of each row, over all lanes."""
    steps: dict[tuple[int, str, int, int], list[int]] = {}
    for step, _, sample in plan.window(range(plan.global_batch), 0, plan.steps):
        if sample:
            steps.setdefault((sample.part, sample.file, sample.row_group, sample.row), []).append(step)
    return {row: int(min(np.diff(seen))) for row, seen in steps.items() if len(seen) > 1}


@pytest.mark.parametrize("global_batch", [1, 5, 16])
@pytest.mark.parametrize("epoch", [0, 1])
def test_samples_of_a_row_stand_apart_in_all_lanes_together(global_batch: int, epoch: int) -> None:
    plan = plan_of((random_images(1_600, 10),), (1,), global_batch=global_batch, epoch=epoch)
    assert most_samples(plan.samples // global_batch) >= 10
    assert min(steps_apart(plan).values()) >= APART >= 32


def test_videos_with_many_anchors_stand_apart_as_images_do() -> None:
    rows = [RowInfo(f"{number}", frames=20 + number % 30, expressions=1 + number % 4) for number in range(400)]
    plan = plan_of((manifest_of(in_groups(rows, 2)),), (5,))
    assert most_samples(plan.samples // plan.global_batch) >= 40
    assert min(steps_apart(plan).values()) >= APART


def test_in_a_small_epoch_the_samples_of_a_row_are_as_far_apart_as_there_is_room() -> None:
    rows = [[RowInfo(f"{number}", 1, 7)] for number in range(12)]
    plan = plan_of((manifest_of(rows),), (1,), global_batch=4)  # three rows a lane, which is 21 steps
    assert set(steps_apart(plan).values()) == {3}


def test_one_long_video_does_not_bring_the_samples_of_others_together() -> None:
    long = manifest_of([[RowInfo("long", frames=2_000, expressions=1)]], "own")
    plan = plan_of((long, random_images(1_600, 10)), (5, 1), global_batch=8)
    assert most_samples(plan.samples // 8) < 400
    apart = steps_apart(plan)
    assert apart.pop((0, "own-0.parquet", 0, 0)) >= 1
    assert min(apart.values()) >= APART


def test_a_lane_passes_on_few_row_groups_at_a_time() -> None:
    plan = plan_of((random_images(1_600, 10),), (1,))
    groups = {(s.file, s.row_group) for _, _, s in plan.window((2,), 900, 1_000) if s}
    assert len(groups) <= 20  # of 229: the samples of 40 rows, and of those that take their place


def test_equal_weights_of_one_change_nothing() -> None:
    assert seen(plan_of(weights=(1, 1)), 1) == seen(plan_of(), 1)


def test_samples_of_a_row_stand_apart_with_weights_too() -> None:
    manifests = (random_images(1_600, 10), random_images(1_600, 5, seed=1))
    plan = plan_of(manifests, (1, 1), weights=(1.5, 0.3))
    assert min(steps_apart(plan).values()) >= APART
    batches = seen(plan, 3)
    assert len([sample for batch in batches for sample in batch if sample]) == plan.samples
    assert batches[50:] == seen(plan, 2, start=50)


def test_weights_that_leave_less_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"with weights \(0.01, 0.0\) have 1 samples to learn from, fewer than the 4"):
        plan_of(weights=(0.01, 0.0))
