"""The order of a lane: samples of one row come far apart, and rows of one row group close together.

A lane is a table of `AT_ONCE` columns. Its rows are dealt to the columns, one below the other, sample by sample, and
then it is read line by line:

    row a, sample 1    row b, sample 1    row c, sample 1
    row a, sample 2    row d, sample 1    row c, sample 2
    row a, sample 3    row d, sample 2    row e, sample 1

So the next sample of a row comes a line later, and few rows are under way at any time.
"""

import heapq
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Int

AT_ONCE: Final = 40
"""Rows that are under way at any time: the columns of a lane."""
_MIXED: Final = 8
"""Neighbours in a line whose order is drawn anew in each line; `AT_ONCE` is a multiple of it."""
APART: Final = AT_ONCE - _MIXED + 1
"""Fewest steps between two samples of a row in a column."""


@dataclass(frozen=True, slots=True)
class LaneRows:
    """The rows of a lane, and how many samples they have. The first and the last may have some in other lanes, too.

    Args:
        counts: samples of each row in this lane, at least one.
        totals: samples of each row in the epoch.
        before: samples of the first row in the lanes before this one.
    """

    counts: Int[np.ndarray, " r"]
    totals: Int[np.ndarray, " r"]
    before: int

    @property
    def shared(self) -> Bool[np.ndarray, " r"]:
        """Whether a row has samples in other lanes."""
        return self.totals > self.counts

    @property
    def starts(self) -> Int[np.ndarray, " r"]:
        """The first sample of each row."""
        return np.cumsum(self.counts) - self.counts


def most_samples(slots: int) -> int:
    """Returns how many samples every row may have for all rows to be kept `APART`, in lanes of so many slots or more.

    Two shared rows beside the columns leave them enough lines.

    >>> most_samples(7_539)  # RefCOCO, 16 clips a step
    177
    """
    return max(0, slots - 2 * AT_ONCE) // (AT_ONCE + 2)


def lane_order(rows: LaneRows, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Returns the samples of a lane in the order of its steps, as indices into them: 0 … n - 1, row by row.

    Rows that two lanes share, and rows longer than a column, are spread evenly over the whole epoch; the columns flow
    around them.
    """
    owner = np.repeat(np.arange(len(rows.counts)), rows.counts)
    samples = np.argsort(owner + rng.random(len(owner)))  # row by row, those of a row in random order
    fits = _fits(rows)
    order, free = np.empty_like(samples), np.arange(len(samples))
    for some in (rows.shared, ~rows.shared & ~fits):  # shared ones first: the other lane counts on their steps
        spread, taken = _spread(rows, np.flatnonzero(some), len(free), rng)
        order[free[taken]] = samples[spread]
        free = np.delete(free, taken)
    order[free] = samples[_in_columns(rows, np.flatnonzero(fits), rng)]
    return order


def _fits(rows: LaneRows) -> Bool[np.ndarray, " r"]:
    """Tells which rows fit into columns with two lines to spare. Columns are the shorter the more rows do not fit."""
    fits = ~rows.shared
    while True:
        still = fits & (rows.counts <= rows.counts[fits].sum() // AT_ONCE - 2)
        if still.sum() == fits.sum():
            return fits
        fits = still


def _spread(
    rows: LaneRows, some: Int[np.ndarray, " k"], slots: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Returns the samples of some rows, spread evenly over so many slots, and their slots."""
    owner = np.repeat(some, rows.totals[some])
    total = rows.totals[owner]
    turn = _ranges(np.zeros_like(some), rows.totals[some])
    # The lanes of a shared row take turns: the one before takes those that this one leaves.
    later = rows.totals - rows.counts - np.where(np.arange(len(rows.counts)) == 0, rows.before, 0)
    is_before = later + rows.counts == rows.totals
    share = np.where(is_before, later, rows.counts)[owner]
    own = ((turn + 1) * share // total > turn * share // total) ^ is_before[owner]
    # Rows start one after another. Those of a shared row must be at the same time in all its lanes.
    start = np.where(rows.shared, 0.5, (rng.permutation(len(rows.counts)) + 0.5) / len(rows.counts))
    times = ((turn + start[owner]) / total)[own]
    order = np.argsort(times, kind="stable")
    # Each takes the slot of its time, or the next one that is free.
    number = np.arange(len(times))
    taken = np.maximum.accumulate((times[order] * slots).astype(np.int64) - number) + number
    samples = _ranges(rows.starts[some], rows.counts[some])
    return samples[order], np.minimum(taken, slots - len(times) + number)


def _in_columns(rows: LaneRows, some: Int[np.ndarray, " k"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Returns the samples of some rows in the order of the lines."""
    dealt = some[_dealt(rows.counts[some])]
    # All columns, one after another. They are cut anew to one length, so that a row may reach from the bottom of one
    # to the top of the next: it is shorter than the columns, so that it comes there at another time.
    samples = _ranges(rows.starts[dealt], rows.counts[dealt])
    lines, rest = divmod(len(samples), AT_ONCE)
    rank = rng.permutation(AT_ONCE)  # of each column in a line
    lengths = lines + (rank < rest)
    tops = (np.cumsum(lengths) - lengths)[np.argsort(rank)]
    step = np.arange(len(samples))
    found = samples[tops[step % AT_ONCE] + step // AT_ONCE]
    whole = len(found) - len(found) % _MIXED
    mixed = rng.permuted(found[:whole].reshape(-1, _MIXED), axis=1).ravel()
    return np.concatenate([mixed, rng.permutation(found[whole:])])


def _dealt(counts: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Returns the order of rows column by column: each row in turn goes to the column that is shortest so far.

    The last ones are dealt from long to short, so that the columns end together.
    """
    last = max(0, len(counts) - AT_ONCE)
    turns = np.concatenate([np.arange(last), last + np.argsort(-counts[last:], kind="stable")])
    columns = list(range(AT_ONCE))  # each as its length times AT_ONCE, plus its number; the shortest first
    lengths = (AT_ONCE * counts[turns]).tolist()
    column_of = [heapq.heapreplace(columns, columns[0] + length) % AT_ONCE for length in lengths]
    # Short columns and long ones by turns: so a row hardly shifts where the columns are cut anew.
    rank = np.empty(AT_ONCE, dtype=np.int64)
    rank[np.array(sorted(columns)) % AT_ONCE] = [*range(0, AT_ONCE, 2), *range(AT_ONCE - 1, 0, -2)]
    return turns[np.argsort(rank[np.array(column_of, dtype=np.int64)], kind="stable")]


def _ranges(starts: Int[np.ndarray, " k"], counts: Int[np.ndarray, " k"]) -> Int[np.ndarray, " n"]:
    """Returns the numbers from each start on, as many as its count, one after another.

    >>> _ranges(np.array([7, 2]), np.array([1, 3])).tolist()
    [7, 2, 3, 4]
    """
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
