"""The deterministic order of samples in an epoch, independent of the number of workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from pipelines.manifest import Manifest, RowInfo


@dataclass(frozen=True, slots=True)
class SampleRef:
    """Reference to a sample: an expression of a row at its k-th anchor. `part` is the index of its manifest."""

    part: int
    file: str
    row_group: int
    row: int
    expression: int
    anchor: int  # the k-th anchor of the expression, not yet a frame


@dataclass(frozen=True)
class _Group:
    """A row group and the samples of its rows: the unit of permutation, since it can be read alone."""

    part: int
    file: str
    row_group: int
    rows: tuple[RowInfo, ...]
    length: int

    @property
    def samples(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def sample(self, place: int) -> SampleRef:
        """Returns the sample at an index: ordered by row, then expression, then anchor."""
        number = int(np.searchsorted(self._ends, place, side="right"))
        row, expression = self._trainable[number]
        anchor = place - int(self._ends[number - 1] if number else 0)
        return SampleRef(self.part, self.file, self.row_group, row, expression, anchor)

    @cached_property
    def _trainable(self) -> list[tuple[int, int]]:
        """(row, expression) of every expression that can be learned from."""
        return [
            (place, expression)
            for place, row in enumerate(self.rows)
            for expression in range(row.expressions)
            if expression not in (row.untrainable or {})
        ]

    @cached_property
    def _ends(self) -> Int[np.ndarray, " n"]:
        """Cumulative number of samples after each of them."""
        counts = [anchor_count(self.rows[row], expression, self.length) for row, expression in self._trainable]
        return np.cumsum(counts, dtype=np.int64)


@dataclass(frozen=True)
class EpochPlan:
    """One epoch: all samples of the manifests, divided among `global_batch` lanes that give one slot per step each.

    Row groups are permuted, their samples concatenated, the sequence cut into lanes of equal length, and each lane
    shuffled within windows of `shuffle_window` steps. Optimiser step s takes slot s of every lane: the global batch.
    The members of a batch depend on lanes, not on workers, so the number of workers only changes who does the work.

    Args:
        manifests: of the prepared folders.
        lengths: frames per clip T of each folder: its anchors are 0, T, 2T, …
        seed, epoch: of every permutation.
        global_batch: clips per optimiser step G, equal to the number of lanes.
        shuffle_window: steps within which a lane is shuffled; one read task emits one window.

    Raises:
        ValueError: there is nothing to learn from, or there are fewer samples than `global_batch`.
    """

    manifests: tuple[Manifest, ...]
    lengths: tuple[int, ...]
    seed: int
    epoch: int
    global_batch: int
    shuffle_window: int = 128

    def __post_init__(self) -> None:
        if len(self.manifests) != len(self.lengths):
            raise ValueError(f"{len(self.manifests)} manifests with {len(self.lengths)} lengths. Give one each.")
        if self.global_batch < 1 or self.shuffle_window < 1:
            raise ValueError(
                f"global_batch={self.global_batch} and shuffle_window={self.shuffle_window} must be at least 1."
            )
        if self.samples < self.global_batch:
            names = ", ".join(f"{one.dataset} {one.split}" for one in self.manifests)
            raise ValueError(
                f"{names} have {self.samples} samples to learn from, fewer than the {self.global_batch} clips of one "
                f"step. Prepare a split whose truth is known (train), or lower the global batch."
            )

    @property
    def samples(self) -> int:
        """Number of samples in the epoch, each seen once."""
        return int(self._ends[-1]) if self._ends.size else 0

    @property
    def steps(self) -> int:
        """Number of optimiser steps in the epoch; in the last one, lanes that are shorter by one have an empty slot."""
        return -(-self.samples // self.global_batch)

    def slot(self, lane: int, step: int) -> SampleRef | None:
        """Returns the sample of a lane at a step; None if the lane has ended."""
        window, place = divmod(step, self.shuffle_window)
        order = self._window(lane, window)
        return self._sample(int(order[place])) if place < len(order) else None

    def read_window(self, lanes: Sequence[int], window: int) -> Iterator[tuple[int, int, SampleRef | None]]:
        """Yields (step, lane, sample) of one window, step by step, and in each step by the given order of lanes."""
        orders = [self._window(lane, window) for lane in lanes]
        first = window * self.shuffle_window
        for place in range(min(self.shuffle_window, self.steps - first)):
            for lane, order in zip(lanes, orders, strict=True):
                yield first + place, lane, self._sample(int(order[place])) if place < len(order) else None

    @property
    def windows(self) -> int:
        """Number of windows in the epoch."""
        return -(-self.steps // self.shuffle_window)

    def _window(self, lane: int, window: int) -> Int[np.ndarray, " n"]:
        """Returns indices into the sequence of samples, in the order of the steps of one window of a lane."""
        first = lane * self.samples // self.global_batch
        end = (lane + 1) * self.samples // self.global_batch
        start = first + window * self.shuffle_window
        places = np.arange(start, max(start, min(start + self.shuffle_window, end)))
        return np.random.default_rng([self.seed, self.epoch, lane, window]).permutation(places)

    def _sample(self, place: int) -> SampleRef:
        number = int(np.searchsorted(self._ends, place, side="right"))
        return self._groups[number].sample(place - int(self._ends[number - 1] if number else 0))

    @cached_property
    def _groups(self) -> list[_Group]:
        """Row groups of all manifests, permuted."""
        groups = [
            _Group(part, shard.file, number, rows, length)
            for part, (manifest, length) in enumerate(zip(self.manifests, self.lengths, strict=True))
            for shard in manifest.shards
            for number, rows in enumerate(shard.row_groups)
        ]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(groups))
        return [groups[place] for place in order]

    @cached_property
    def _ends(self) -> Int[np.ndarray, " n"]:
        """Cumulative number of samples after each row group."""
        return np.cumsum([group.samples for group in self._groups], dtype=np.int64)


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


def anchor_count(row: RowInfo, expression: int, length: int) -> int:
    """Returns the number of anchors of an expression of a row."""
    return row.anchor_counts[expression] if row.anchor_counts is not None else -(-row.frames // length)
