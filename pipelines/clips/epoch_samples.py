"""The samples of one epoch: those of a table, repeated or thinned by the weights of their parts."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from pipelines.clips.sample_table import SampleTable


@dataclass(frozen=True)
class EpochSamples:
    """The samples of one epoch.

    Args:
        table: all samples.
        weights: how often the epoch has the samples of each part. Of n samples it has floor(weight) * n, and
            round((weight - floor(weight)) * n) of them once more, which are drawn anew in every epoch. None: all once.
        seed: of the draw, with the epoch.

    Raises:
        ValueError: there is not one weight for each part, a weight is negative or no number, or all are 0.
    """

    table: SampleTable
    weights: tuple[float, ...] | None
    seed: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        names = self.table.names
        if len(self.weights) != len(names):
            raise ValueError(
                f"{len(self.weights)} weights for {len(names)} prepared folders ({', '.join(names)}). Give one each."
            )
        for weight, name in zip(self.weights, names, strict=True):
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"The weight {weight} of {name} must be 0 or more: how often an epoch has its samples."
                )
        if not any(self.weights):
            raise ValueError(f"The weights {self.weights} of {', '.join(names)} sum to 0. Give one of them more.")

    @property
    def total(self) -> int:
        """Number of samples in the epoch; the same in every epoch."""
        return sum(whole * count + more for count, whole, more in self._shares)

    @cached_property
    def counts(self) -> Int[np.ndarray, " r"]:
        """Samples of each row in the epoch."""
        if self.weights is None:
            return self.table.counts
        more = np.diff(np.searchsorted(self._more, np.cumsum(self.table.counts)), prepend=0)
        return self._wholes * self.table.counts + more

    def numbers_in_table(
        self, rows: Int[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Returns the numbers that n samples of the epoch have in their rows of the table, and which repeat each is."""
        if self.weights is None:
            return numbers, np.zeros_like(numbers)
        counts = self.table.counts[rows]
        repeats = np.minimum(numbers // counts, self._wholes[rows])
        numbers = numbers - repeats * counts
        drawn = np.flatnonzero(repeats == self._wholes[rows])
        starts = (np.cumsum(self.table.counts) - self.table.counts)[rows[drawn]]
        numbers[drawn] = self._more[np.searchsorted(self._more, starts) + numbers[drawn]] - starts
        return numbers, repeats

    @cached_property
    def _shares(self) -> list[tuple[int, int, int]]:
        """Of each part its number of samples, how often the epoch has them all, and how many it has once more."""
        parts = len(self.table.names)
        counts = np.bincount(self.table.part_of, self.table.counts, parts).astype(np.int64).tolist()
        weights = self.weights or (1.0,) * parts
        return [(count, int(one), round(one % 1 * count)) for count, one in zip(counts, weights, strict=True)]

    @cached_property
    def _wholes(self) -> Int[np.ndarray, " r"]:
        """Number of times that the epoch has all samples of each row."""
        return np.array([whole for _, whole, _ in self._shares], dtype=np.int64)[self.table.part_of]

    @cached_property
    def _more(self) -> Int[np.ndarray, " n"]:
        """The samples that the epoch has once more, numbered in the order of the table, sorted."""
        drawn, first = [], 0
        for part, (count, _, more) in enumerate(self._shares):
            rng = np.random.default_rng([*self.seed, part])
            drawn.append(first + np.sort(rng.choice(count, more, replace=False, shuffle=False)))
            first += count
        return np.concatenate(drawn)
