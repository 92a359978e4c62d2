"""The samples of prepared folders, counted row by row from their manifests."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

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
    repeat: int = 0  # 1 if the epoch has it for the second time, and so on; only parts of a weight above 1 repeat


@dataclass(frozen=True, slots=True)
class SampleTable:
    """All rows of some manifests, numbered from 0 in their order, and how many samples each row has.

    The samples of a row are ordered by expression, then by anchor. Expressions that cannot be learned from have none.
    """

    names: tuple[str, ...]  # dataset and split of each manifest
    rows: Sequence[RowInfo]
    counts: Int[np.ndarray, " r"]  # samples of each row
    anchors: Int[np.ndarray, " r"]  # anchors of each expression of a row
    uneven: Bool[np.ndarray, " r"]  # rows in which an expression is untrainable, or has anchors of its own
    row_groups: Sequence[tuple[int, str, int]]  # part, file, and number in the file
    row_group_of: Int[np.ndarray, " r"]
    first_rows: Int[np.ndarray, " g"]  # of each row group

    @classmethod
    def of(cls, manifests: Sequence[Manifest], lengths: Sequence[int]) -> "SampleTable":
        """Counts the samples of prepared folders; `lengths` are the frames per clip T of each: its anchors are 0, T, …

        Raises:
            ValueError: there are more or fewer lengths than manifests.
        """
        if len(manifests) != len(lengths):
            raise ValueError(f"{len(manifests)} manifests with {len(lengths)} lengths. Give one each.")
        found = [
            ((part, shard.file, number), rows)
            for part, manifest in enumerate(manifests)
            for shard in manifest.shards
            for number, rows in enumerate(shard.row_groups)
        ]
        rows = [row for _, group in found for row in group]
        sizes = _integers(len(group) for _, group in found)
        length_of = np.repeat(_integers(lengths[part] for (part, _, _), _ in found), sizes)
        anchors = -(-_integers(row.frames for row in rows) // length_of)
        counts = anchors * _integers(row.expressions for row in rows)
        uneven = np.array([bool(row.untrainable) or row.anchor_counts is not None for row in rows], dtype=np.bool_)
        for number in np.flatnonzero(uneven).tolist():
            counts[number] = sum(count for _, count in _trainable(rows[number], int(anchors[number])))
        return cls(
            tuple(f"{one.dataset} {one.split}" for one in manifests), rows, counts, anchors, uneven,
            [group for group, _ in found], np.repeat(np.arange(len(found)), sizes), np.cumsum(sizes) - sizes,
        )  # fmt: skip

    @property
    def part_of(self) -> Int[np.ndarray, " r"]:
        """The manifest of each row."""
        return _integers(part for part, _, _ in self.row_groups)[self.row_group_of]

    def expressions_and_anchors(
        self, rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Returns expression and anchor of n samples, of which the rows and the numbers within their rows are given."""
        expressions, anchors = np.divmod(numbers, self.anchors[rows].clip(min=1))
        known: dict[int, list[tuple[int, int]]] = {}
        for index in np.flatnonzero(self.uneven[rows]).tolist():
            row = int(rows[index])
            if row not in known:
                trainable = _trainable(self.rows[row], int(self.anchors[row]))
                known[row] = [(expression, anchor) for expression, count in trainable for anchor in range(count)]
            expressions[index], anchors[index] = known[row][numbers[index]]
        return expressions, anchors


def anchor_count(row: RowInfo, expression: int, length: int) -> int:
    """Returns the number of anchors of an expression of a row, for clips of `length` frames."""
    return row.anchor_counts[expression] if row.anchor_counts is not None else -(-row.frames // length)


def _trainable(row: RowInfo, anchors: int) -> Iterator[tuple[int, int]]:
    """Yields every expression that can be learned from, and its number of anchors: `anchors`, or one of its own."""
    for expression in range(row.expressions):
        if expression not in (row.untrainable or {}):
            yield expression, anchors if row.anchor_counts is None else row.anchor_counts[expression]


def _integers(values: Iterable[int]) -> Int[np.ndarray, " n"]:
    return np.fromiter(values, np.int64)
