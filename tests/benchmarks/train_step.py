"""Measures a training step of the recipe `finetune`: waiting for data, forward, backward, optimiser, and peak memory.

The clips come through the real loader from made-up videos that were really prepared, and go into the real train step.
Prints medians with machine and versions, and asserts nothing about time. On a GPU:
`--device cuda --precision bfloat16 --steps 40`.
"""

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import ray
import torch

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.stream import Streaming, TrainData, TrainPart
from pipelines.files import Folder
from pipelines.manifest import Manifest
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.sources.synthetic import SyntheticConfig, write_synthetic
from pipelines.sources.ytvos import RefYouTubeVOS
from pipelines.training.data import geometry_of, own_tokenizer
from pipelines.training.loader import StepBatch, StepLoader
from sgmg.config import PRESETS, SgMgConfig
from sgmg.host_memory import keep_freed_memory
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import optimizer_for
from sgmg.segmenter import best_device
from sgmg.train_step import TrainStep

WARM_UP = 1
"""Steps that are no measure of anything: the pipeline and the kernels start."""
PHASES = ("data wait", "forward", "backward", "optimiser")


@dataclass(frozen=True)
class Step:
    """Seconds of one optimiser step by phase, those of the processor in all, and the shape of its clips."""

    seconds: dict[str, float]
    cpu: float  # of this process, on which other work on the machine has little influence
    shape: tuple[int, ...]

    @property
    def whole(self) -> float:
        return sum(self.seconds.values())


def prepared(folder: Path, videos: int, height: int, width: int) -> Manifest:
    """Made-up videos, drawn and prepared into the folder, in one process."""
    drawn = SyntheticConfig(
        train_images=1, val_images=1, train_videos=videos, valid_videos=1, test_videos=1,
        fewest_frames=6, most_frames=6, width=width, height=height,
    )  # fmt: skip
    source = RefYouTubeVOS(Folder(str(write_synthetic(folder / "raw", drawn).ytvos)), "train")
    out = Folder(str(folder / "data")).make()
    plans = plan_shards(source, {}, 4)
    for plan in plans:
        ShardWriter(source, out).write(plan)
    return finish(plans, source, out, {})


def whole_frames(data: TrainData) -> TrainData:
    """The same without the sentences of which the recipe's coin makes a crop: clips are then all of one size.

    Training has no such switch, and a clip's draws hang on nothing but its name: so its samples are chosen.
    """
    plan, (part,) = data.plan(0), data.parts
    cropped: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for row in data.reader(0).rows(plan.window(range(data.global_batch), 0, plan.steps)):
        if row["sample"] and (row["drawn"] is None or row["drawn"].geometry.crop is not None):
            _, _, video, expression, _ = row["sample"].split("/")
            cropped[video][int(expression)] = "cropped"
    shards = tuple(
        replace(
            shard,
            row_groups=tuple(
                tuple(
                    replace(row, untrainable={**(row.untrainable or {}), **cropped.get(row.video, {})}) for row in group
                )
                for group in shard.row_groups
            ),
        )
        for shard in part.manifest.shards
    )
    return replace(data, parts=(replace(part, manifest=replace(part.manifest, shards=shards)),))


def a_step(arguments: argparse.Namespace) -> TrainStep:
    """The train step of a fresh model, its text encoder frozen, as the recipe has it, with a worker's memory."""
    config = replace(SgMgConfig.preset(arguments.preset), activation_checkpointing=arguments.activation_checkpointing)
    device = best_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = SgMg(config)
    model.text.freeze(keep=8192)
    model = model.to(device).train()
    return TrainStep(Objective(model), optimizer_for(model), device=device, precision=arguments.precision, measure=True)


def measured(step: TrainStep, clips: Iterator[StepBatch]) -> Iterator[Step]:
    """Every step with its times."""
    while True:
        asked = time.perf_counter()
        found = next(clips, None)
        if found is None:
            return
        waited = time.perf_counter() - asked
        before = time.process_time()
        report = step(found.micro_batches, found.step)
        cpu = time.process_time() - before
        yield Step({"data wait": waited, **report.seconds}, cpu, tuple(found.micro_batches[0].batch.frames.shape))


def peak_gigabytes(device: torch.device) -> float:
    """Of the GPU, or of this process, which holds the model and the clips that wait."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ends = WARM_UP + arguments.steps
    short = min(arguments.height, arguments.width)
    recipe = replace(ClipRecipe.video(arguments.frames), geometry=geometry_of((short,)))
    ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(str(Path(name) / "data"))
        manifest = prepared(Path(name), 4 + ends * arguments.clips, arguments.height, arguments.width)
        part = TrainPart(folder, manifest, recipe)
        data = whole_frames(TrainData((part,), 0, arguments.clips))
        if data.plan(0).steps < ends:
            raise SystemExit(f"Only {data.plan(0).steps} steps of clips could be drawn. Ask for fewer --steps.")
        tokenizer = own_tokenizer([folder.uri], 512)
        step = a_step(arguments)
        loading = StepLoader(
            data, tokenizer, 0, 1, 0, ends, 4, Streaming(reserved_cpus=1.0), step.device.type == "cuda"
        )
        steps = list(measured(step, loading.steps()))[WARM_UP:]
    tell(arguments, step.device, steps)


def tell(arguments: argparse.Namespace, device: torch.device, steps: list[Step]) -> None:
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray"))
    sizes = sorted({step.shape for step in steps})
    print(
        f"{arguments.preset}, {arguments.clips} clip(s) of {arguments.frames}x{arguments.height}x{arguments.width} "
        f"frames x height x width a step (b t c h w as padded: {sizes}), {arguments.precision}, {packages}, {where}, "
        f"{arguments.threads} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, median of {len(steps)}"
    )
    whole = statistics.median(step.whole for step in steps)
    print("\n| | seconds | share |\n|---|---|---|")
    for phase in PHASES:
        seconds = statistics.median(step.seconds[phase] for step in steps)
        print(f"| {phase} | {seconds:.3f} | {seconds / whole:.0%} |")
    cpu = statistics.median(step.cpu for step in steps)
    print(f"| whole step | {whole:.3f} | (of the processor, after the wait: {cpu:.3f}) |")
    print(f"\n{arguments.clips / whole:.2f} clips/s, peak memory {peak_gigabytes(device):.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="video-swin-t", choices=PRESETS)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--height", type=int, default=360, help="pixels")
    parser.add_argument("--width", type=int, default=640, help="pixels, at most twice the height")
    parser.add_argument("--clips", type=int, default=1, help="a step, each in a forward pass of its own")
    parser.add_argument("--steps", type=int, default=3, help="that are measured, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpus", type=int, default=max(4, os.cpu_count() or 1), help="logical cores of Ray")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--device", help="cuda or cpu (the best there is)")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    main(parser.parse_args())
