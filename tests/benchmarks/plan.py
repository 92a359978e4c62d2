"""Measures the plan of an epoch: how long it takes, what read tasks get of it, and which row groups they read.

Prints `name value` lines, and asserts nothing about time. Of a million sentences about videos of 30 frames, in 64 lanes
that one rank has all; and of images as many, and as large, as RefCOCO's (train, UNC), in 16 lanes of 1 to 16 ranks. Of
both there are only the manifests. `.venv/bin/python tests/benchmarks/plan.py`
"""

import argparse
import pickle
import time
from collections.abc import Iterator

import numpy as np

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.epoch_plan import EpochPlan, lanes_of
from pipelines.clips.stream import Streaming, TrainData, TrainPart, windows_of
from pipelines.clips.window import Window
from pipelines.files import Folder
from pipelines.manifest import Manifest, RowInfo, Shard
from pipelines.prepare.shard import GROUP

FRAMES, SENTENCES_PER_VIDEO, VIDEO_BYTES = 30, 5, 2_000_000
IMAGES, OBJECTS, SENTENCES, IMAGE_BYTES = 16_994, 42_404, 120_624, 165_000  # RefCOCO
GROUPS_A_SHARD = 20
LENGTH = 5  # frames a clip


def manifest_of(dataset: str, rows: list[RowInfo], sizes: np.ndarray) -> Manifest:
    """Rows of so many bytes each, in row groups as jobs/prepare.py writes them."""
    groups: list[list[RowInfo]] = [[]]
    filled = 0.0
    for row, more in zip(rows, sizes.tolist(), strict=True):
        if filled >= GROUP:
            groups.append([])
            filled = 0.0
        groups[-1].append(row)
        filled += more
    size = GROUPS_A_SHARD
    shards = [tuple(map(tuple, groups[first : first + size])) for first in range(0, len(groups), size)]
    files = [f"{dataset}-train-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))]
    described = tuple(Shard(file, len(some) * GROUP, some) for file, some in zip(files, shards, strict=True))
    counts = {"videos": len(rows), "frames": sum(row.frames for row in rows)}
    return Manifest(dataset, "train", {}, counts, {}, 0, "", described)


def large(sentences: int) -> Manifest:
    """Videos of 30 frames, five sentences each."""
    videos = sentences // SENTENCES_PER_VIDEO
    rows = [RowInfo(f"video{number:07d}", FRAMES, SENTENCES_PER_VIDEO) for number in range(videos)]
    return manifest_of("large", rows, np.full(videos, VIDEO_BYTES))


def refcoco(share: float) -> Manifest:
    """Images with as many objects and sentences as those of RefCOCO, spread at random, or a share of them."""
    rng = np.random.default_rng(0)
    images, objects, sentences = (int(share * number) for number in (IMAGES, OBJECTS, SENTENCES))
    objects_of = 1 + np.bincount(rng.integers(0, images, objects - images), minlength=images)
    sentences_of = 1 + np.bincount(rng.integers(0, objects, sentences - objects), minlength=objects)
    counts = np.add.reduceat(sentences_of, np.cumsum(objects_of) - objects_of)
    rows = [RowInfo(f"COCO_train2014_{number:012d}", 1, count) for number, count in enumerate(counts.tolist())]
    return manifest_of("refcoco", rows, rng.lognormal(np.log(0.94 * IMAGE_BYTES), 0.35, images))


def data_of(manifest: Manifest, recipe: ClipRecipe, global_batch: int) -> TrainData:
    return TrainData((TrainPart(Folder("/nowhere"), manifest, recipe),), 0, global_batch)


def of_many_sentences(sentences: int) -> Iterator[tuple[str, float]]:
    """Seconds until the first window is there, from the manifest and from the second epoch on, and its size."""
    data, lanes = data_of(large(sentences), ClipRecipe.video(LENGTH), 64), range(64)
    for name, epoch in (("plan_seconds", 0), ("plan_seconds_next_epoch", 1)):
        started = time.perf_counter()
        next(windows_of(data, data.plan(epoch), lanes, 0, Streaming()))
        yield name, time.perf_counter() - started
    plan = data.plan(0)
    started = time.perf_counter()
    first = next(windows_of(data, plan, lanes, plan.steps // 2, Streaming()))
    yield "plan_seconds_from_the_middle", time.perf_counter() - started
    steps = Streaming().window_steps(data, 64)
    groups = len(Window.from_bytes(first["window"]).row_groups)
    yield "read_amplification_videos_64_lanes", groups * plan.steps / steps / len(plan.table.row_groups)
    reader = len(pickle.dumps(data.reader(0)))
    largest = plan.window(lanes, 0, Streaming().window_samples // 64)
    yield "task_payload_kB", (reader + len(first["window"])) / 1000
    yield "task_payload_kB_128_steps", (reader + len(plan.window(lanes, 0, 128).to_bytes())) / 1000
    yield "task_payload_kB_at_most", (reader + len(largest.to_bytes())) / 1000


def of_refcoco(share: float) -> Iterator[tuple[str, float]]:
    """How often row groups are read in an epoch, and how close the sentences of an image come."""
    data = data_of(refcoco(share), ClipRecipe.pseudo_video(LENGTH), 16)
    plan = data.plan(0)
    groups = sum(len(shard.row_groups) for shard in data.parts[0].manifest.shards)
    for world in (1, 2, 4, 8, 16):
        windows = (
            Window.from_bytes(item["window"])
            for rank in range(world)
            for item in windows_of(data, plan, lanes_of(rank, world, 16), 0, Streaming(world=world))
        )
        name = "read_amplification_refcoco_16_lanes" + (f"_{world}_ranks" if world > 1 else "")
        yield name, sum(len(window.row_groups) for window in windows) / groups
    yield "min_steps_apart", min_steps_apart(plan)


def min_steps_apart(plan: EpochPlan) -> int:
    """The fewest steps between two samples of one row, over all lanes."""
    window = plan.window(range(plan.global_batch), 0, plan.steps)
    steps = np.arange(len(window.row)) // plan.global_batch
    order = np.lexsort((steps, window.row))
    order = order[window.row[order] >= 0]
    same = np.diff(window.row[order].astype(np.int64)) == 0
    return int(np.diff(steps[order])[same].min())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the data, to see that it runs")
    share = 1 / 3 if parser.parse_args().quick else 1.0
    for measured in (of_many_sentences(int(share * 10**6)), of_refcoco(share)):
        for name, value in measured:
            print(f"{name} {value:.4g}", flush=True)
