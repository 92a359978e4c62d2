"""The deterministic order of samples in an epoch, independent of the number of workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from jaxtyping import Int

from pipelines.clips.epoch_samples import EpochSamples
from pipelines.clips.lane_order import LaneRows, lane_order
from pipelines.clips.sample_table import SampleRef, SampleTable
from pipelines.clips.window import Window

PLAN_VERSION: Final = 2
"""Version of the order; a run goes on with the version it was begun with. 2: samples of a row stand apart."""
_LINE, _LANE, _WEIGHTS = 1, 2, 3  # what random numbers are drawn for


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: all samples of a table, divided among `global_batch` lanes that give one slot per step each.

    The shuffle: row groups are permuted, and the rows of neighbouring ones shuffled as far as `shuffle_window` samples
    reach. Their samples, row by row, are a line, which is cut into lanes of equal length. In a lane 40 rows take turns,
    in random order; a row that has had all its turns is followed by the next (`lane_order`).

    The samples of a row stand at least 33 steps apart, over all lanes, if no row has more than
    `most_samples(samples // global_batch)`, which is a 42nd of the steps. A row that has more is spread evenly over the
    epoch, as far apart as there is room. With many such rows the columns for the others may become too short for some
    of these, which are then spread as well.

    Optimiser step s takes slot s of every lane: the global batch. The members of a batch depend on lanes, not on
    workers, so the number of workers only changes who does the work.

    Args:
        table: the samples.
        seed, epoch: of every permutation.
        global_batch: clips per optimiser step G, equal to the number of lanes.
        shuffle_window: samples within which rows are shuffled beyond their row group.
        weights: how often the epoch has the samples of each part (`EpochSamples`); None: all once.

    Raises:
        ValueError: there is nothing to learn from, there are fewer samples than `global_batch`, or the weights are
            wrong.
    """

    table: SampleTable
    seed: int
    epoch: int
    global_batch: int
    shuffle_window: int = 128
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.shuffle_window < 1:
            raise ValueError(
                f"global_batch={self.global_batch} and shuffle_window={self.shuffle_window} must be at least 1."
            )
        if self.samples < self.global_batch:
            weighted = f" with weights {self.weights}" if self.weights else ""
            raise ValueError(
                f"{', '.join(self.table.names)}{weighted} have {self.samples} samples to learn from, fewer than the "
                f"{self.global_batch} clips of one step. Prepare a split whose truth is known (train), or lower the "
                f"global batch."
            )

    @cached_property
    def samples(self) -> int:
        """Number of samples in the epoch. Without weights each is seen once."""
        return self._samples.total

    @property
    def steps(self) -> int:
        """Number of optimiser steps in the epoch; in the last one, lanes that are shorter by one have an empty slot."""
        return -(-self.samples // self.global_batch)

    def slot(self, lane: int, step: int) -> SampleRef | None:
        """Returns the sample of a lane at a step; None if the lane has ended."""
        return self.window((lane,), step, step + 1).sample(0)

    def window(self, lanes: Sequence[int], first: int, end: int, *, untrainable: bool = False) -> Window:
        """Returns the slots of some lanes from a step to another, which is not included, or to the end of the epoch.

        Args:
            untrainable: whether the window lists the expressions of its rows that cannot be learned from.
        """
        positions = np.full((min(end, self.steps) - first, len(lanes)), -1)
        for column, lane in enumerate(lanes):
            order = self._lane(lane)[first:end]
            positions[: len(order), column] = order
        positions = positions.ravel()
        known = np.flatnonzero(positions >= 0)
        line, ends = self._line
        place = np.searchsorted(ends, positions[known], side="right")
        numbers, repeats = np.zeros_like(positions), np.zeros_like(positions)
        rows = np.full_like(positions, -1)
        rows[known] = line[place]
        first_of_row = ends[place] - self._samples.counts[rows[known]]
        numbers[known], repeats[known] = self._samples.numbers_in_table(rows[known], positions[known] - first_of_row)
        return Window.of(self.table, first, tuple(lanes), rows, numbers, repeats, untrainable=untrainable)

    def _lane(self, lane: int) -> Int[np.ndarray, " n"]:
        """Returns the samples of a lane in the order of its steps, as positions in the line."""
        if lane not in self._lanes:
            first, end = (number * self.samples // self.global_batch for number in (lane, lane + 1))
            line, ends = self._line
            head, last = np.searchsorted(ends, [first, end - 1], side="right").tolist()
            ends = ends[head : last + 1]
            totals = self._samples.counts[line[head : last + 1]]
            counts = np.minimum(ends, end) - np.maximum(ends - totals, first)
            rows = LaneRows(counts, totals, before=first - int(ends[0] - totals[0]))
            rng = np.random.default_rng([self.seed, self.epoch, _LANE, lane])
            self._lanes[lane] = first + lane_order(rows, rng)
        return self._lanes[lane]

    @cached_property
    def _lanes(self) -> dict[int, Int[np.ndarray, " n"]]:
        """The lanes that were needed so far."""
        return {}

    @cached_property
    def _line(self) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
        """All rows that have samples, in the order of the line, and where in it the samples of each end."""
        rng = np.random.default_rng([self.seed, self.epoch, _LINE])
        counts, row_group_of = self._samples.counts, self.table.row_group_of
        order = rng.permutation(len(self.table.row_groups))
        sizes = np.bincount(row_group_of, counts, len(order)).astype(np.int64)[order]
        window = np.empty_like(order)
        window[order] = (np.cumsum(sizes) - sizes) // self.shuffle_window
        rows = np.argsort(window[row_group_of] + rng.random(len(counts)))
        rows = rows[counts[rows] > 0]
        return rows, np.cumsum(counts[rows])

    @cached_property
    def _samples(self) -> EpochSamples:
        return EpochSamples(self.table, self.weights, (self.seed, self.epoch, _WEIGHTS))


def lanes_of(rank: int, world: int, global_batch: int, clips_per_pass: int = 1) -> tuple[int, ...]:
    """Returns the lanes of a rank: blocks of `clips_per_pass` lanes that share a forward pass, dealt round-robin.

    Lanes of a block are padded to one size, and padding changes the numbers, so the members of a forward pass must not
    depend on `world`.

    >>> lanes_of(0, 2, 8, clips_per_pass=2), lanes_of(1, 3, 4)
    ((0, 1, 4, 5), (1,))

    Raises:
        ValueError: a rank would have no lanes, or a block would be incomplete.
    """
    if global_batch % clips_per_pass:
        raise ValueError(
            f"A global batch of {global_batch} clips cannot be cut into forward passes of {clips_per_pass}. "
            f"Choose a divisor."
        )
    passes = global_batch // clips_per_pass
    if world > passes:
        raise ValueError(
            f"{world} workers for {passes} forward passes a step ({global_batch} clips, {clips_per_pass} at once): "
            f"some would have nothing to do. Start at most {passes} workers, or raise the global batch."
        )
    return tuple(
        block * clips_per_pass + place for block in range(rank, passes, world) for place in range(clips_per_pass)
    )
