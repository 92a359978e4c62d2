"""The samples that one read task makes clips of, as small as they travel to it."""

import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pipelines.clips.sample_table import SampleRef, SampleTable


@dataclass(frozen=True, slots=True)
class Window:
    """The slots of some lanes over some optimiser steps, step by step, and in each step by the given order of lanes.

    The rows and row groups of its samples are listed once, and slots refer to them by index.

    Args:
        first: first step, of the epoch.
        lanes: l lanes.
        row: of each slot, the index of its sample's row; -1 if the lane has ended.
        expression, anchor, repeat: of each slot's sample, as in `SampleRef`; 0 if the lane has ended.
        row_group: of each row, the index of its row group.
        row_number: of each row, its number in the row group.
        row_groups: part, file and number in the file of each row group.
        untrainable: expressions that cannot be learned from, by the index of their row.
    """

    first: int
    lanes: tuple[int, ...]
    row: Int[np.ndarray, " s*l"]
    expression: Int[np.ndarray, " s*l"]
    anchor: Int[np.ndarray, " s*l"]
    repeat: Int[np.ndarray, " s*l"]
    row_group: Int[np.ndarray, " r"]
    row_number: Int[np.ndarray, " r"]
    row_groups: tuple[tuple[int, str, int], ...]
    untrainable: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(
        cls,
        table: SampleTable,
        first: int,
        lanes: tuple[int, ...],
        rows: Int[np.ndarray, " n"],
        numbers: Int[np.ndarray, " n"],
        repeats: Int[np.ndarray, " n"],
        *,
        untrainable: bool,
    ) -> "Window":
        """Makes a window of the row of each slot (-1 if the lane has ended) and the number of its sample in the row."""
        known = rows >= 0
        distinct, index = np.unique(rows[known], return_inverse=True)
        row, expression, anchor = np.full_like(rows, -1), np.zeros_like(rows), np.zeros_like(rows)
        row[known] = index
        expression[known], anchor[known] = table.expressions_and_anchors(rows[known], numbers[known])
        groups, group = np.unique(table.row_group_of[distinct], return_inverse=True)
        left_out = {
            place: tuple(table.rows[number].untrainable or ())
            for place, number in enumerate(distinct.tolist() if untrainable else [])
            if table.rows[number].untrainable
        }
        return cls(
            first,
            lanes,
            row=_narrow(row),
            expression=_narrow(expression),
            anchor=_narrow(anchor),
            repeat=_narrow(repeats),
            row_group=_narrow(group),
            row_number=_narrow(distinct - table.first_rows[groups[group]]),
            row_groups=tuple(table.row_groups[number] for number in groups.tolist()),
            untrainable=left_out,
        )

    def __iter__(self) -> Iterator[tuple[int, int, SampleRef | None]]:
        """Yields step, lane and sample of every slot; None if the lane has ended."""
        for slot in range(len(self.row)):
            step, lane = divmod(slot, len(self.lanes))
            yield self.first + step, self.lanes[lane], self.sample(slot)

    def sample(self, slot: int) -> SampleRef | None:
        """Returns the sample of a slot; None if the lane has ended."""
        row = int(self.row[slot])
        if row < 0:
            return None
        return SampleRef(
            *self.row_groups[self.row_group[row]],
            row=int(self.row_number[row]),
            expression=int(self.expression[slot]),
            anchor=int(self.anchor[slot]),
            repeat=int(self.repeat[slot]),
        )

    def slots_of_row_groups(self) -> list[list[int]]:
        """Returns the slots of each row group's samples, in order."""
        slots: list[list[int]] = [[] for _ in self.row_groups]
        for slot in np.flatnonzero(self.row >= 0).tolist():
            slots[self.row_group[self.row[slot]]].append(slot)
        return slots

    def to_bytes(self) -> bytes:
        """Converts the window to bytes: about two for each slot, and two for each row."""
        return zlib.compress(pickle.dumps(self), level=1)

    @staticmethod
    def from_bytes(data: bytes) -> "Window":
        """Reads a window that this program wrote with `to_bytes`."""
        return pickle.loads(zlib.decompress(data))


def _narrow(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Converts numbers to the smallest integers that hold them all."""
    if not values.size:
        return values
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
