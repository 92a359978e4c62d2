"""Stream of training clips from prepared Parquet: Ray Data feeds one train worker in the order of the plan.

Two stages: read tasks make all random decisions for a window of the plan and pass on only the compressed frames and the
track of each sample (`window_reader`); decode tasks make the clips. The position is one integer, the optimiser step.
Whole videos, for inference, come from `pipelines.predict.decode`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.epoch_plan import EpochPlan, lanes_of
from pipelines.clips.lane_order import AT_ONCE
from pipelines.clips.sample_table import SampleTable
from pipelines.clips.slots import Slot, decode_row, slot_of
from pipelines.clips.window_reader import WindowReader, read_window
from pipelines.files import Folder
from pipelines.manifest import Manifest

_BLOCK_BYTES = 8 * 2**20
"""Size of Ray Data's blocks: the default of 128 MB delays the first batch by seconds."""
_READ_CPUS = 0.25
"""CPUs of a read task, which mostly waits for the disk. Differs from a decode task's so that Ray does not fuse them."""
_READ_TASKS = 1
"""Read tasks at once. A second one would fill the object store with what is not yet due."""


@dataclass(frozen=True, slots=True)
class TrainPart:
    """One prepared folder, and the recipe of its clips."""

    folder: Folder
    manifest: Manifest
    recipe: ClipRecipe

    @property
    def row_bytes(self) -> float:
        """Mean size of a row, in bytes."""
        return sum(shard.bytes for shard in self.manifest.shards) / self.manifest.counts["videos"]

    @property
    def clip_bytes(self) -> float:
        """Mean size of the frames of a clip, in bytes, as they are stored."""
        frames = self.manifest.counts["frames"] / self.manifest.counts["videos"]
        return self.row_bytes * min(1.0, self.recipe.length / frames)


@dataclass(frozen=True)
class TrainData:
    """All training data, divided into lanes; the same on every rank.

    Args:
        parts: prepared folders with one clip length T.
        seed: of the plans and of all random decisions for clips.
        global_batch: clips per optimiser step, each from its own lane.
        clips_per_pass: neighbouring lanes that share a forward pass.
        shuffle_window: samples within which rows are shuffled beyond their row group.
        sentences_per_clip: sentences of the same video share its frames. The published recipes use one.
        varied: whether a clip has between one and so many, of different objects before others of the same.
        shares: of each part in an epoch, of sum 1, which then has as many samples as all parts together; None: each
            sample is seen once.

    Raises:
        ValueError: the parts have different clip lengths, which cannot share a batch.
    """

    parts: tuple[TrainPart, ...]
    seed: int
    global_batch: int
    clips_per_pass: int = 1
    shuffle_window: int = 128
    sentences_per_clip: int = 1
    varied: bool = False
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(lengths := {part.recipe.length for part in self.parts}) != 1:
            raise ValueError(f"Clips of {sorted(lengths)} frames cannot share a batch. Give all parts one length.")

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of an epoch."""
        return EpochPlan(self._table, self.seed, epoch, self.global_batch, self.shuffle_window, self.repeats)

    @property
    def part_samples(self) -> tuple[int, ...]:
        """Number of samples of each part."""
        table = self._table
        counted = np.bincount(table.part_of, table.counts, len(self.parts))
        return tuple(int(count) for count in counted)

    @property
    def repeats(self) -> tuple[float, ...] | None:
        """Number of times that an epoch has the samples of each part, so that the parts have their shares; None: once.

        Raises:
            ValueError: a part has a share, but no sample to learn from.
        """
        if self.shares is None:
            return None
        counts = self.part_samples
        for part, count, share in zip(self.parts, counts, self.shares, strict=True):
            if share and not count:
                raise ValueError(f"{part.folder.uri} has a share of {share:g}, but no sample to learn from.")
        whole = sum(counts)
        return tuple(share * whole / max(1, count) for share, count in zip(self.shares, counts, strict=True))

    @cached_property
    def _table(self) -> SampleTable:
        """The samples, which are the same in every epoch."""
        manifests = [part.manifest for part in self.parts]
        return SampleTable.of(manifests, [part.recipe.length for part in self.parts])

    def reader(self, epoch: int) -> WindowReader:
        """Returns the reader of an epoch's windows."""
        parts = tuple((part.folder, part.recipe) for part in self.parts)
        return WindowReader(parts, self.seed, epoch, self.sentences_per_clip, self.varied)


@dataclass(frozen=True, slots=True)
class Streaming:
    """Share of the cluster that one worker's pipeline uses."""

    cpus_per_decode: float = 1.0
    world: int = 1  # workers that share the cluster
    reserved_cpus: float = 0.0  # of all workers, not available to pipelines
    window_samples: int = 2**15  # most samples of a read task: their list has about 100 kB
    window_bytes: int = 2**30  # of frames that a read task may hold, about

    def window_steps(self, data: TrainData, lanes: int) -> int:
        """Returns the optimiser steps that a read task covers for some lanes.

        A window reads each of its row groups once; those that reach into the next window are read there again. So it
        has as many steps as it can: if all rows that are under way in the lanes fit into memory, their number does not
        matter, since rows take the place of those before; else the frames of all its clips must fit.
        """
        steps = self.window_samples // lanes
        if lanes * 2 * AT_ONCE * max(part.row_bytes for part in data.parts) > self.window_bytes:
            steps = min(steps, int(self.window_bytes / (lanes * max(part.clip_bytes for part in data.parts))))
        return max(1, steps)


def train(
    data: TrainData, epoch: int, rank: int, world: int, start_step: int = 0, streaming: Streaming | None = None
) -> Iterator[tuple[Slot, ...]]:
    """Yields the slots of this rank's lanes, one optimiser step at a time, from `start_step` of the epoch on.

    Needs a running Ray. `world` only decides which lanes this rank gets.

    Raises:
        ValueError: there are more ranks than forward passes per step.
    """
    streaming = _with_memory(streaming or Streaming(world=world))
    lanes = lanes_of(rank, world, data.global_batch, data.clips_per_pass)
    _configure(streaming)
    windows = list(windows_of(data, data.plan(epoch), lanes, start_step, streaming))
    if not windows:
        return
    stream = (
        ray.data.from_items(windows, override_num_blocks=len(windows))
        .flat_map(
            partial(read_window, reader=data.reader(epoch)),
            num_cpus=_READ_CPUS,
            compute=TaskPoolStrategy(_READ_TASKS),
        )
        .map(decode_row, num_cpus=streaming.cpus_per_decode)
    )
    step: list[Slot] = []
    blocks: Any = stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
    for table in blocks:
        for place in range(table.num_rows):
            step.append(slot_of(table, place))
            if len(step) == len(lanes):
                yield tuple(step)
                step = []


def windows_of(
    data: TrainData, plan: EpochPlan, lanes: Sequence[int], start_step: int, streaming: Streaming
) -> Iterator[dict[str, bytes]]:
    """Yields what read tasks get for some lanes, from a step of the epoch on, step by step: a window for each."""
    steps = streaming.window_steps(data, len(lanes))
    for first in range(start_step, plan.steps, steps):
        window = plan.window(lanes, first, first + steps, untrainable=data.sentences_per_clip > 1)
        yield {"window": window.to_bytes()}


def _with_memory(streaming: Streaming) -> Streaming:
    """Returns the same with more memory for a read task where there is much: a sixteenth of the worker's share."""
    share = ray.cluster_resources().get("memory", 0.0) / streaming.world / 16
    return replace(streaming, window_bytes=max(streaming.window_bytes, int(share)))


def _configure(streaming: Streaming) -> None:
    """Configures Ray Data in this process: preserved order, small blocks, and its share of the cluster."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    context.execution_options.preserve_order = True
    cluster = ray.cluster_resources()
    cpus = max(0.0, cluster.get("CPU", 1.0) - streaming.reserved_cpus) / streaming.world
    context.execution_options.resource_limits = ExecutionResources(
        cpu=max(cpus, streaming.cpus_per_decode + _READ_CPUS),
        # Half of it is for the pipelines of all workers; towards the end of an epoch each has two.
        object_store_memory=cluster.get("object_store_memory", 2**30) / 4 / streaming.world,
    )


def without_videos(manifest: Manifest, held_out: frozenset[str]) -> Manifest:
    """Returns the manifest with all expressions of the given videos marked as untrainable."""
    shards = tuple(
        replace(
            shard,
            row_groups=tuple(
                tuple(
                    replace(row, untrainable=dict.fromkeys(range(row.expressions), "held out"))
                    if row.video in held_out
                    else row
                    for row in group
                )
                for group in shard.row_groups
            ),
        )
        for shard in manifest.shards
    )
    return replace(manifest, shards=shards)
