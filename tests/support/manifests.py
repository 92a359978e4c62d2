"""Manifests of data that does not exist: for plans, which read nothing else."""

from collections.abc import Sequence

import numpy as np

from pipelines.manifest import Manifest, RowInfo, Shard


def manifest_of(row_groups: Sequence[Sequence[RowInfo]], dataset: str = "own", groups_per_shard: int = 1) -> Manifest:
    """Of some row groups, in shards of so many."""
    shards = [row_groups[first : first + groups_per_shard] for first in range(0, len(row_groups), groups_per_shard)]
    described = tuple(
        Shard(f"{dataset}-{number}.parquet", 1, tuple(map(tuple, some))) for number, some in enumerate(shards)
    )
    return Manifest(dataset, "train", {}, {}, {}, 0, "", described)


def in_groups(rows: Sequence[RowInfo], size: int) -> list[Sequence[RowInfo]]:
    """The same rows, in row groups of so many."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def random_images(images: int, most: int, seed: int = 0) -> Manifest:
    """Images with one to `most` sentences, seven in a row group."""
    sentences = np.random.default_rng(seed).integers(1, most, images, endpoint=True).tolist()
    rows = [RowInfo(f"{number}", frames=1, expressions=count) for number, count in enumerate(sentences)]
    return manifest_of(in_groups(rows, 7))
