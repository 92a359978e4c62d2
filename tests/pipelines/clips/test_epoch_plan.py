"""Which sample is seen at which step, whatever the number of workers."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest

from pipelines.clips.epoch_plan import EpochPlan, SampleRef, lanes_of
from pipelines.manifest import Manifest, RowInfo, Shard


def manifest_of(rows: list[list[RowInfo]], dataset: str = "own") -> Manifest:
    shards = tuple(Shard(f"{dataset}-{number}.parquet", 1, (tuple(group),)) for number, group in enumerate(rows))
    return Manifest(dataset, "train", {}, {}, {}, 0, "", shards)


VIDEOS = manifest_of([[RowInfo(f"{g}{r}", frames=6 + g + r, expressions=1 + r) for r in range(3)] for g in range(7)])
IMAGES = manifest_of(
    [[RowInfo(f"i{g}{r}", 1, 4, untrainable={1: "crowd"}) for r in range(5)] for g in range(3)], "refcoco"
)
ASKED = manifest_of([[RowInfo("v", frames=30, expressions=2, anchor_counts=(3, 1))]], "a2d-sentences")


def plan_of(**changes: Any) -> EpochPlan:
    settings: dict[str, Any] = {
        "manifests": (VIDEOS, IMAGES),
        "lengths": (5, 1),
        "seed": 3,
        "epoch": 0,
        "global_batch": 4,
        "shuffle_window": 8,
    }
    return EpochPlan(**settings | changes)


def seen(plan: EpochPlan, world: int, start: int = 0, together: int = 1) -> list[list[SampleRef | None]]:
    """The global batch of every step from `start` on, as `world` ranks read it."""
    batches: dict[int, dict[int, SampleRef | None]] = {}
    for rank in range(world):
        lanes = lanes_of(rank, world, plan.global_batch, together)
        slots = chain.from_iterable(plan.read_window(lanes, window) for window in range(plan.windows))
        for step, lane, sample in slots:
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
    groups = {(s.part, s.file) for _, _, s in plan.read_window((0,), 0) if s}
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
    assert len(list(plan.read_window(range(16), 3))) == 16 * 128
