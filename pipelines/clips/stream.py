"""Stream of training clips from prepared Parquet: Ray Data feeds one train worker in the order of the plan.

Two stages: for each window of the plan, a read task makes all random decisions and passes on only the compressed frames
and the track of each sample; decode tasks make the clips. The position is one integer, the optimiser step. Whole
videos, for inference, come from `pipelines.predict.decode`.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, ExecutionResources

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.clip import Clip, ClipParams, Target, apply_params, retarget, sample_params
from pipelines.clips.epoch_plan import EpochPlan, SampleRef, lanes_of
from pipelines.clips.sample_reader import FoundSample, RowGroup, sample_of, sibling_samples
from pipelines.clips.sampling import clip_rng, draw_sentences
from pipelines.files import Folder
from pipelines.manifest import Manifest

_BLOCK_BYTES = 8 * 2**20
"""Size of Ray Data's blocks: the default of 128 MB delays the first batch by seconds."""
_READ_CPUS = 0.25
"""CPUs of a read task, which mostly waits for the disk. Differs from a decode task's so that Ray does not fuse them."""


@dataclass(frozen=True, slots=True)
class TrainPart:
    """One prepared folder, and the recipe of its clips."""

    folder: Folder
    manifest: Manifest
    recipe: ClipRecipe

    def untrainable(self, sample: SampleRef) -> Collection[int]:
        """Returns the indices of the expressions of the sample's video that cannot be learned from."""
        shard = next(shard for shard in self.manifest.shards if shard.file == sample.file)
        return shard.row_groups[sample.row_group][sample.row].untrainable or ()


@dataclass(frozen=True, slots=True)
class TrainData:
    """All training data, divided into lanes; the same on every rank.

    Args:
        parts: prepared folders with one clip length T.
        seed: of the plans and of all random decisions for clips.
        global_batch: clips per optimiser step, each from its own lane.
        clips_per_pass: neighbouring lanes that share a forward pass.
        shuffle_window: steps within which a lane is shuffled.
        sentences_per_clip: sentences of the same video share its frames. The published recipes use one.
        varied: whether a clip has between one and so many, of different objects before others of the same.

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

    def __post_init__(self) -> None:
        if len(lengths := {part.recipe.length for part in self.parts}) != 1:
            raise ValueError(f"Clips of {sorted(lengths)} frames cannot share a batch. Give all parts one length.")

    def plan(self, epoch: int) -> EpochPlan:
        """Returns the plan of an epoch."""
        manifests = tuple(part.manifest for part in self.parts)
        lengths = tuple(part.recipe.length for part in self.parts)
        return EpochPlan(manifests, lengths, self.seed, epoch, self.global_batch, self.shuffle_window)


@dataclass(frozen=True, slots=True)
class Slot:
    """The clip of one lane at one step; None if the sample was dropped or the lane has ended."""

    step: int  # of the epoch
    lane: int
    sample: str  # its name, for logs; empty if the lane has ended
    clip: Clip | None
    dropped: str = ""  # reason if the sample was dropped


@dataclass(frozen=True, slots=True)
class Streaming:
    """Share of the cluster that one worker's pipeline uses."""

    cpus_per_decode: float = 1.0
    world: int = 1  # workers that share the cluster
    reserved_cpus: float = 0.0  # of all workers, not available to pipelines


def train(
    data: TrainData, epoch: int, rank: int, world: int, start_step: int = 0, streaming: Streaming | None = None
) -> Iterator[tuple[Slot, ...]]:
    """Yields the slots of this rank's lanes, one optimiser step at a time, from `start_step` of the epoch on.

    Needs a running Ray. `world` only decides which lanes this rank gets.

    Raises:
        ValueError: there are more ranks than forward passes per step.
    """
    plan = data.plan(epoch)
    lanes = lanes_of(rank, world, data.global_batch, data.clips_per_pass)
    _configure(streaming or Streaming(world=world))
    windows = [{"window": window} for window in range(start_step // data.shuffle_window, plan.windows)]
    if not windows:
        return
    read = partial(read_window, data=data, plan=plan, lanes=lanes, start_step=start_step)
    decode_cpus = (streaming or Streaming()).cpus_per_decode
    stream = (
        ray.data.from_items(windows, override_num_blocks=len(windows))
        .flat_map(read, num_cpus=_READ_CPUS)
        .map(decode_row, num_cpus=decode_cpus)
    )
    step: list[Slot] = []
    blocks: Any = stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
    for table in blocks:
        for place in range(table.num_rows):
            step.append(slot_of(table, place))
            if len(step) == len(lanes):
                yield tuple(step)
                step = []


def read_window(
    item: dict[str, Any], *, data: TrainData, plan: EpochPlan, lanes: Sequence[int], start_step: int
) -> Iterator[dict[str, Any]]:
    """Yields the compressed samples of one window of the plan, step by step: one row for `decode_row` each."""
    # Ray pickles ClipParams and would warn about it in every task.
    logging.getLogger("ray.data._internal.tensor_extensions.arrow").setLevel(logging.ERROR)
    slots = [slot for slot in plan.read_window(lanes, int(item["window"])) if slot[0] >= start_step]
    left = Counter(_home(sample) for _, _, sample in slots if sample)
    groups: dict[tuple[int, str, int], RowGroup] = {}
    for step, lane, sample in slots:
        if sample is None:
            yield _row(step, lane)
            continue
        home = _home(sample)
        if home not in groups:
            groups[home] = RowGroup(data.parts[sample.part].folder, sample.file, sample.row_group)
        yield _row(step, lane) | _drawn(groups[home], sample, data, plan.epoch)
        left[home] -= 1
        if not left[home]:
            del groups[home]


def _drawn(group: RowGroup, sample: SampleRef, data: TrainData, epoch: int) -> dict[str, Any]:
    """Returns the compressed frames of one clip, or why the sample is dropped."""
    part = data.parts[sample.part]
    recipe = part.recipe
    found = sample_of(group, sample, recipe)
    name = found.name
    if found.unfit:
        return {"sample": name, "dropped": found.unfit}
    rng = clip_rng(data.seed, epoch, name)
    drawn = sample_params(recipe, found.clip, rng)
    if drawn is None:
        return {"sample": name, "dropped": f"object in no frame after {recipe.redraws} draws"}
    numbers = [found.frames[place] for place in drawn.distinct]
    return {
        "sample": name,
        "drawn": drawn,
        "frames": [group.frame(sample.row, number) for number in numbers],
        "rles": [found.clip.rles[place] for place in drawn.distinct],
        "siblings": _siblings(drawn, group, sample, found, data, rng),
    }


def _siblings(
    drawn: ClipParams,
    group: RowGroup,
    sample: SampleRef,
    found: FoundSample,
    data: TrainData,
    rng: np.random.Generator,
) -> list[tuple[ClipParams, list[str | None]]]:
    """Returns other sentences of the video for the same frames, with the tracks of their objects."""
    part, sentences = data.parts[sample.part], data.sentences_per_clip
    if data.varied:
        sentences = draw_sentences(sentences, rng)
    if sentences == 1:
        return []
    untrainable = part.untrainable(sample)
    others = sibling_samples(group, sample, found, untrainable, sentences - 1, rng, spread=data.varied)
    retargeted = [(retarget(drawn, part.recipe, other), other) for other in others]
    return [(one, [other.rles[place] for place in drawn.distinct]) for one, other in retargeted if one is not None]


def _row(step: int, lane: int) -> dict[str, Any]:
    return {
        "step": step,
        "lane": lane,
        "sample": "",
        "dropped": "",
        "drawn": None,
        "frames": [],
        "rles": [],
        "siblings": [],
    }


def decode_row(row: dict[str, Any]) -> dict[str, Any]:
    """Converts one row of `read_window` to a clip of plain bytes; `slot_of` reads it back without a copy.

    Raises:
        ValueError: a frame is damaged; the message names the sample.
    """
    head = {name: row[name] for name in ("step", "lane", "sample", "dropped")}
    if row["drawn"] is None:
        return head | {
            "shape": [],
            "frames": b"",
            "masks": b"",
            "boxes": [],
            "valid": [],
            "texts": [],
            "target_frame": -1,
        }
    try:
        clip = apply_params(row["drawn"], row["frames"], row["rles"], row["siblings"])
    except ValueError as error:
        raise ValueError(f"{row['sample']}: {error}") from error
    return head | {
        "shape": [*clip.frames.shape[:3], len(clip.masks)],
        "frames": clip.frames.tobytes(),
        "masks": np.packbits(np.stack([target.masks for target in clip.targets])).tobytes(),
        "boxes": np.stack([target.boxes for target in clip.targets]).ravel().tolist(),
        "valid": np.stack([target.valid for target in clip.targets]).ravel().tolist(),
        "texts": [target.text for target in clip.targets],
        "target_frame": -1 if clip.target_frame is None else clip.target_frame,
    }


def slot_of(table: pa.Table, place: int) -> Slot:
    """Reads a row of `decode_row`; the frames share the memory of the table."""
    row = {name: table[name][place] for name in table.column_names}
    head = (row["step"].as_py(), row["lane"].as_py(), row["sample"].as_py())
    shape = row["shape"].as_py()
    if not shape:
        return Slot(*head, None, row["dropped"].as_py())
    t, height, width, n = shape
    frames = np.frombuffer(row["frames"].as_buffer(), dtype=np.uint8).reshape(t, height, width, 3)
    texts = row["texts"].as_py()
    e = len(texts)
    bits = np.frombuffer(row["masks"].as_buffer(), dtype=np.uint8)
    masks = np.unpackbits(bits, count=e * n * height * width).view(np.bool_).reshape(e, n, height, width)
    boxes = np.array(row["boxes"].as_py(), dtype=np.float32).reshape(e, n, 4)
    valid = np.array(row["valid"].as_py()).reshape(e, n)
    first, *others = [Target(*one) for one in zip(texts, masks, boxes, valid, strict=True)]
    target_frame = row["target_frame"].as_py()
    clip = Clip(
        frames,
        first.masks,
        first.boxes,
        first.valid,
        first.text,
        None if target_frame < 0 else target_frame,
        tuple(others),
    )
    return Slot(*head, clip)


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
        object_store_memory=cluster.get("object_store_memory", 2**30) / 2 / streaming.world,
    )


def _home(sample: SampleRef) -> tuple[int, str, int]:
    return sample.part, sample.file, sample.row_group


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
