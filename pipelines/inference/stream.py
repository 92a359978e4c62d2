"""The Ray Data stream that predict and annotate share: its stages, its settings and their reasons."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray


def _rows(dataset: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    with warnings.catch_warnings():
        # How many segments there are is known when they are planned, not when the stream is made.
        warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
        yield from dataset.iter_rows()


_MOST_BLOCKS = 1000
"""Of row groups; more would only cost the scheduler."""


_BLOCK_BYTES = 1
"""A block ends behind every unit: predictors take units one at a time, and no worker holds many."""


_WRITE_CPUS = 0.1
"""Of a task that writes: it mostly waits for the storage."""


_AHEAD = 4
"""Tasks that decode at once, at most, for each predictor."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the stages take of the cluster.

    Attributes:
        actors: fewest and most predictors.
        gpus_per_actor, cpus_per_actor: of each; half a GPU lets two share one, so that it never waits.
        cpus_per_decode: of each task that reads and decodes.
    """

    actors: tuple[int, int]
    gpus_per_actor: float
    cpus_per_actor: float
    cpus_per_decode: float
