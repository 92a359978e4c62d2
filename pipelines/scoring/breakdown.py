"""Scores by attribute, and the difference of runs with its bootstrap interval: what a model gets wrong, or better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipelines.scoring.attributes import GROUPS, groups_of
from pipelines.scoring.benchmark_figures import is_of_reported_kind
from pipelines.scoring.rows import Row, TrackRow

RESAMPLES = 10_000
"""Bootstrap samples of an interval."""

_CONFIDENCE = 0.95
_AT_ONCE = 2**22  # draws held in memory


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one group of one attribute."""

    attribute: str
    name: str
    places: tuple[int, ...]


def is_counted(row: Row) -> bool:
    """Returns whether a row counts in means: no row of DAVIS's second protocol, or of a kind of no reported figure."""
    return is_of_reported_kind(row) and not (isinstance(row, TrackRow) and row.protocol == "strict-id")


def groups(rows: Sequence[Row]) -> list[Group]:
    """Groups rows by each attribute, in the order of `GROUPS`; an attribute with a single group is left out.

    Rows that do not count (`is_counted`), and rows without attributes, are in no group.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for place, row in enumerate(rows):
        if row.attributes is None or not is_counted(row):
            continue
        for attribute, name in groups_of(row.attributes).items():
            found.setdefault(attribute, {}).setdefault(name, []).append(place)
    return [
        Group(attribute, name, tuple(places))
        for attribute, named in found.items()
        if len(named) > 1
        for name in GROUPS[attribute]
        if (places := named.get(name))
    ]


def paired_interval(differences: Sequence[float], videos: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a mean difference, in which whole videos are drawn with replacement.

    Sentences of one video succeed and fail together, so the video, not the sentence, is what is drawn.

    >>> paired_interval([0.25, 0.25, 0.25], ["a", "a", "b"])
    (0.25, 0.25)

    Args:
        differences: of each row.
        videos: the video of each row.

    Raises:
        ValueError: there are no rows, or the two lengths differ.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size or len(videos) != values.size:
        raise ValueError(f"{values.size} differences of {len(videos)} videos. Give at least one, and a video of each.")
    _, place = np.unique(np.asarray(videos), return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    means = _resampled_means(sums, counts, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _resampled_means(
    sums: Float[np.ndarray, " v"], counts: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Returns the mean of each sample of videos, drawn a few samples at a time."""
    videos, means = len(sums), []
    several = max(1, _AT_ONCE // videos)
    for first in range(0, RESAMPLES, several):
        drawn = rng.integers(videos, size=(min(several, RESAMPLES - first), videos))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
