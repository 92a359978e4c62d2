"""Measures `prepare` and the way from prepared Parquet to batches, beside a plain DataLoader and decoding alone.

All work on the same files in the same run: real frames of the data kit, at 854x480 and as larger JPEG copies at
1280x720. Speeds are per second of processor time, medians of several runs, so that other work on the machine does not
count; nothing is asserted. `.venv/bin/python tests/benchmarks/clips.py`
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported: a decode task has one core

import argparse
import json
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import ray
import torch
from PIL import Image
from plain_clips import PlainClip, plain_loader

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.collate import collate
from pipelines.clips.geometry import ResizeFilter, transform_image
from pipelines.clips.slots import decode_row, slot_of
from pipelines.clips.stream import Streaming, TrainData, TrainPart, train
from pipelines.files import Folder
from pipelines.prepare.run import finish, plan_shards, write_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.tokenizer import Tokenizer

KIT = Path(__file__).resolve().parents[3] / "shared" / "data"
LENGTH = 5  # frames a clip
QUALITY = 88  # of JPEG copies: about the bytes a pixel that Ref-YouTube-VOS has
VIDEOS_A_SHARD = 3
WARM_UP = 16  # clips


@dataclass(frozen=True)
class Cost:
    """Median seconds of several runs."""

    wall: float
    cpu: float  # of this process and of those it started that have ended


def cost(run: Callable[[], object], repeats: int) -> Cost:
    wall, cpu = [], []
    for _ in range(repeats):
        started, before = time.perf_counter(), _cpu_seconds()
        run()
        wall.append(time.perf_counter() - started)
        cpu.append(_cpu_seconds() - before)
    return Cost(statistics.median(wall), statistics.median(cpu))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def write_raw(kit: Path, root: Path, height: int, width: int) -> Path:
    """The kit's wide sequences in the layout of Ref-YouTube-VOS; files of the right size are copied untouched."""
    info: dict[str, Any] = json.loads((kit / "vos" / "info.json").read_text())
    meta, told = {}, {}
    for name, about in sorted(info.items()):
        if about["gray"] or not 1.77 < about["size"][0] / about["size"][1] < 1.79:
            continue
        files = sorted((kit / "vos" / name / "JPEGImages").iterdir())[: 2 * LENGTH]
        for kind in ("JPEGImages", "Annotations"):
            (root / "train" / kind / name).mkdir(parents=True)
        for file in files:
            _write_frame(file, root / "train" / "JPEGImages" / name / file.name, height, width)
            _write_mask(file.parents[1] / "Annotations" / f"{file.stem}.png", root, name, height, width)
        frames = [file.stem for file in files]
        meta[name] = {"objects": {id: {"category": text, "frames": frames} for id, text in about["objects"].items()}}
        said = [(id, texts[0]) for id, texts in about["expressions"].items()]
        expressions = {str(number): {"exp": text, "obj_id": id} for number, (id, text) in enumerate(said)}
        told[name] = {"expressions": expressions, "frames": frames}
    (root / "meta_expressions" / "train").mkdir(parents=True)
    (root / "meta_expressions" / "train" / "meta_expressions.json").write_text(json.dumps({"videos": told}))
    (root / "train" / "meta.json").write_text(json.dumps({"videos": meta}))
    return root


def _write_frame(file: Path, to: Path, height: int, width: int) -> None:
    image = cv2.imread(str(file))
    assert image is not None
    if image.shape[:2] == (height, width):
        shutil.copyfile(file, to)
        return
    larger = cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4)
    cv2.imwrite(str(to), larger, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _write_mask(file: Path, root: Path, video: str, height: int, width: int) -> None:
    with Image.open(file) as mask:
        mask.resize((width, height), Image.Resampling.NEAREST).save(root / "train/Annotations" / video / file.name)


def prepared(raw: Path, out: Path) -> TrainPart:
    """The prepared data in one process, without Ray."""
    source, folder = RefYouTubeVOS(Folder(str(raw)), "train"), Folder(str(out)).make()
    plans = plan_shards(source, {}, VIDEOS_A_SHARD)
    for plan in plans:
        ShardWriter(source, folder).write(plan)
    return TrainPart(folder, finish(plans, source, folder, {}), ClipRecipe.video(LENGTH))


def rows_of(data: TrainData) -> Iterator[dict[str, Any]]:
    """The compressed samples of an epoch, as a read task passes them on."""
    plan = data.plan(0)
    return data.reader(0).rows(plan.window((0,), 0, plan.steps))


def plain_clips(raw: Path, data: TrainData) -> list[PlainClip]:
    """The files and draws of the same clips."""
    told = json.loads((raw / "meta_expressions/train/meta_expressions.json").read_text())["videos"]
    clips = []
    for row in rows_of(data):
        if row["drawn"] is None:
            continue
        _, _, video, expression, _ = row["sample"].split("/")
        names = [told[video]["frames"][number] for number in row["drawn"].frames]
        images = tuple(raw / "train/JPEGImages" / video / f"{name}.jpg" for name in names)
        masks = tuple(raw / "train/Annotations" / video / f"{name}.png" for name in names)
        clips.append(PlainClip(images, masks, int(told[video]["expressions"][expression]["obj_id"]), row["drawn"]))
    return clips


def with_filter(data: TrainData, kind: ResizeFilter) -> TrainData:
    """The same data, resized by another filter."""
    return replace(data, parts=tuple(replace(part, recipe=replace(part.recipe, resize=kind)) for part in data.parts))


def our_batches(data: TrainData, tokenizer: Tokenizer) -> Iterator[Any]:
    """What the pipeline does, without Ray between its stages."""
    for row in rows_of(data):
        slot = slot_of(pa.Table.from_pylist([decode_row(row)]), 0)
        if slot.clip is not None:
            yield collate([slot.clip], tokenizer, LENGTH)


def decoded(data: TrainData) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """The frames of the same clips, each of a clip once."""
    for row in rows_of(data):
        for frame in row["frames"]:
            image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            yield image, row


def resized(data: TrainData, kind: ResizeFilter) -> Iterator[np.ndarray]:
    for image, row in decoded(data):
        yield transform_image(image, row["drawn"].geometry, kind)


def streamed(data: TrainData, tokenizer: Tokenizer, clips: int) -> float:
    """Clips/s on the wall, after the first ones."""
    parts = data.parts * -(-clips // data.plan(0).samples)  # one long epoch: the start of one takes a second
    long = replace(data, parts=parts)
    made, started = 0, 0.0
    for slots in train(long, 0, 0, 1, streaming=Streaming()):
        for slot in slots:
            if slot.clip is not None:
                collate([slot.clip], tokenizer, LENGTH)
                made += bool(started)
        if not started and slots[0].step == WARM_UP:
            started = time.perf_counter()
    return made / (time.perf_counter() - started)


def farthest(data: TrainData, tokenizer: Tokenizer, plain: list[PlainClip]) -> tuple[float, float]:
    """How far the yardstick's frames are from ours: at most and on average, in grey levels."""
    apart = [
        (ours[0].frames - theirs[0]).abs() * 0.226 * 255
        for ours, theirs in zip(our_batches(data, tokenizer), plain_loader(plain, tokenizer, 0), strict=True)
    ]
    return max(float(one.max()) for one in apart), statistics.mean(float(one.mean()) for one in apart)


def measured(raw: Path, out: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Every speed of one size of frames, by name."""
    part = prepared(raw, out / "prepared")
    data = TrainData((part,), seed=0, global_batch=1)
    counts = part.manifest.counts
    tokenizer = Tokenizer.train(["a black swan", "the dog on the left"])
    plain = plain_clips(raw, data)
    exact, fast = with_filter(data, "pillow"), with_filter(data, "torch")
    clips, repeats = len(plain), arguments.repeats
    apart = farthest(exact, tokenizer, plain)
    print(
        f"{raw.name}: {counts['frames']} frames of {counts['frame_bytes'] / counts['frames'] / 1000:.0f} kB, {clips} "
        f"clips; the yardstick's pixels are off by {apart[1]:.3f} of 255 on average, {apart[0]:.0f} at most",
        flush=True,
    )
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: [None for _ in our_batches(exact, tokenizer)],
        "ours, resize=torch": lambda: [None for _ in our_batches(fast, tokenizer)],
        "plain DataLoader": lambda: [None for _ in plain_loader(plain, tokenizer, 0)],
        "plain DataLoader, 1 worker": lambda: [None for _ in plain_loader(plain, tokenizer, 1)],
        "reading and drawing alone": lambda: [None for _ in rows_of(exact)],
        "decoding alone": lambda: [None for _ in decoded(exact)],
        "decoding and Pillow's resize alone": lambda: [None for _ in resized(exact, "pillow")],
        "decoding and torch's resize alone": lambda: [None for _ in resized(exact, "torch")],
    }
    found = {f"{name}, clips/s": clips / cost(run, repeats).cpu for name, run in runs.items()}
    if arguments.cpus:
        name = f"ours, resize=torch, through Ray with {arguments.cpus} CPUs, clips/s on the wall"
        found[name] = streamed(fast, tokenizer, arguments.streamed)
    megabytes = counts["frame_bytes"] / 1e6
    once = cost(lambda: prepared(raw, _fresh(out)), repeats)
    found |= {"prepare, MB/s": megabytes / once.cpu, "prepare, videos/s": counts["videos"] / once.cpu}
    if arguments.cpus:
        found["prepare through Ray, MB/s on the wall"] = megabytes / cost(lambda: _by_ray(raw, _fresh(out)), 1).wall
    alone = cost(lambda: [_decode_file(file) for file in sorted(raw.glob("train/JPEGImages/*/*"))], repeats)
    return found | {"decoding alone, MB/s": megabytes / alone.cpu}


def _fresh(out: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=out))


def _by_ray(raw: Path, out: Path) -> None:
    source = RefYouTubeVOS(Folder(str(raw)), "train")
    plans = plan_shards(source, {}, VIDEOS_A_SHARD)
    for _ in write_shards(plans, ShardWriter(source, Folder(str(out)))):
        pass


def _decode_file(file: Path) -> None:
    cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)


def main(arguments: argparse.Namespace) -> None:
    if not (arguments.kit / "MANIFEST.csv").is_file():
        print(f"clips.py is left out: {arguments.kit} is no data kit. Name one with --kit.")
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("pillow", "opencv-python-headless", "torch", "torchvision", "ray")
    )
    cores = os.cpu_count()
    print(f"{platform.processor() or platform.machine()}, {cores} cores, 1 thread; {packages}; load {os.getloadavg()}")
    if arguments.cpus:
        ray.init(address="local", num_cpus=arguments.cpus, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"854x480": (480, 854), "1280x720": (720, 1280)}
        found = {}
        for name, size in sizes.items():
            raw = write_raw(arguments.kit, Path(folder) / name, *size)
            found[name] = measured(raw, Path(folder) / f"out-{name}", arguments)
    print(f"\n| a second of processor time | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for row in next(iter(found.values())):
        print(f"| {row} | {' | '.join(f'{column[row]:.1f}' for column in found.values())} |")
    for yardstick in ("plain DataLoader", "plain DataLoader, 1 worker", "decoding alone"):
        for ours in ("ours", "ours, resize=torch"):
            times = [column[f"{ours}, clips/s"] / column[f"{yardstick}, clips/s"] for column in found.values()]
            print(f"| {ours} / {yardstick} | {' | '.join(f'{ratio:.2f}' for ratio in times)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=KIT, help="folder of the data kit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--streamed", type=int, default=480, help="clips through Ray")
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="of Ray; 0 leaves it out")
    main(parser.parse_args())
