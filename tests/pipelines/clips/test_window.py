"""The list of samples that travels to a read task."""

import numpy as np
import pytest

from manifests import in_groups, manifest_of, random_images
from pipelines.clips.epoch_plan import EpochPlan
from pipelines.clips.sample_table import SampleTable
from pipelines.clips.window import Window
from pipelines.manifest import RowInfo

ROWS = [
    RowInfo(f"{n}", frames=5, expressions=4, untrainable={1: "crowd", 3: "crowd"} if n % 3 else None) for n in range(30)
]


def plan_of(*rows: RowInfo, global_batch: int = 4) -> EpochPlan:
    return EpochPlan(SampleTable.of((manifest_of(in_groups(rows, 4)),), (5,)), 0, 0, global_batch)


def test_a_window_is_the_same_after_its_journey() -> None:
    window = plan_of(*ROWS).window((1, 3), 2, 30, untrainable=True)
    arrived = Window.from_bytes(window.to_bytes())
    assert list(arrived) == list(window)
    assert arrived.untrainable == window.untrainable


def test_lanes_that_have_ended_have_empty_slots() -> None:
    plan = plan_of(*ROWS, global_batch=7)
    slots = list(plan.window(range(7), 0, plan.steps + 5))
    assert [(step, lane) for step, lane, _ in slots] == [
        (step, lane) for step in range(plan.steps) for lane in range(7)
    ]
    empty = [step for step, _, sample in slots if sample is None]
    assert empty == [plan.steps - 1] * (plan.steps * 7 - plan.samples)


def test_the_slots_of_a_row_group_are_those_of_its_samples_in_order() -> None:
    window = plan_of(*ROWS).window((0, 2), 0, 12)
    groups = window.slots_of_row_groups()
    assert sorted(slot for slots in groups for slot in slots) == list(range(24))
    for (_, file, number), slots in zip(window.row_groups, groups, strict=True):
        assert slots == sorted(slots)
        assert {(s.file, s.row_group) for slot in slots if (s := window.sample(slot))} == {(file, number)}


def test_what_cannot_be_learned_from_is_listed_for_the_rows_of_the_window_if_it_is_wanted() -> None:
    plan = plan_of(*ROWS)
    assert plan.window((0,), 0, 9).untrainable == {}
    window = plan.window((0,), 0, 9, untrainable=True)
    for slot, row in enumerate(window.row.tolist()):
        sample = window.sample(slot)
        assert sample is not None
        video = int(sample.file.removeprefix("own-").removesuffix(".parquet")) * 4 + sample.row
        assert window.untrainable.get(row, ()) == tuple(ROWS[video].untrainable or ())


@pytest.mark.parametrize("most", [1, 12])
def test_a_large_window_is_small_on_its_way(most: int) -> None:
    table = SampleTable.of((random_images(300_000 // most, most),), (1,))
    plan = EpochPlan(table, 0, 0, 64)
    assert len(plan.window(range(64), 100, 228).to_bytes()) < 60_000  # 8192 samples
    assert len(plan.window(range(64), 100, 612).to_bytes()) < 200_000  # 32768


def test_numbers_are_kept_as_small_as_they_are() -> None:
    window = plan_of(*ROWS).window((0,), 0, 10)
    assert {values.dtype for values in (window.expression, window.anchor, window.row_number)} == {np.dtype(np.uint8)}
