"""Measures the model: time and peak memory of every stage, and of answering several expressions. `make bench`.

Prints medians of repeated runs with machine and versions, and asserts nothing about time. On a GPU:
`--device cuda --precision bfloat16`.
"""

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from sgmg.config import PRESETS, SgMgConfig
from sgmg.model import SgMg
from sgmg.preprocess import normalize, pad_clips
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer


def measured(run: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median seconds on the wall and of the processor."""
    wall, cpu = [], []
    for _ in range(repeats):
        with _waited(device):
            started = time.perf_counter(), time.process_time()
            run()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return statistics.median(wall), statistics.median(cpu)


@contextmanager
def _waited(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_gigabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    sentences = [f"the {number}th dog from the left" for number in range(arguments.expressions)]
    segmenter = Segmenter(
        SgMg(SgMgConfig.preset(arguments.preset)),
        Tokenizer.train(sentences),
        device=arguments.device,
        precision=arguments.precision,
        short_side=min(arguments.height, arguments.width),
        rows=arguments.rows,
    )
    model, device = segmenter.model, segmenter.device
    shape = (arguments.frames, arguments.height, arguments.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    frames, padding, _ = (part.to(device) for part in pad_clips([normalize(pixels)], 16))
    reduced = None if arguments.precision == "float32" else getattr(torch, arguments.precision)
    several = f"Segmenter, {len(sentences)} expressions"
    stages: dict[str, Callable[[], object]] = {
        "backbone": lambda: model.backbone(frames),
        "encode_video": lambda: model.encode_video(frames, padding),
        "Segmenter, 1 expression": lambda: segmenter(pixels, sentences[:1]),
        several: lambda: segmenter(pixels, sentences),
    }
    with torch.inference_mode(), torch.autocast(device.type, dtype=reduced, enabled=reduced is not None):
        stages["backbone"]()  # The first call of all is no measure of anything.
        times = {name: measured(run, arguments.repeats, device) for name, run in stages.items()}
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(
        f"{arguments.preset}, {'x'.join(map(str, shape[:3]))} frames x height x width, {arguments.precision}, "
        f"torch {torch.__version__}, {where}, {arguments.threads} threads, {segmenter.rows} rows at once, "
        f"median of {arguments.repeats}"
    )
    for name, (wall, cpu) in times.items():
        print(f"{name:26} {wall:8.3f} s   {cpu:8.3f} CPU s   {arguments.frames / wall:8.2f} frames/s")
    gain = len(sentences) * times["Segmenter, 1 expression"][0] / times[several][0]
    print(f"{len(sentences)} expressions at once: {gain:.2f} times faster than a run for each")
    print(f"peak memory {peak_gigabytes(device):.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="video-swin-t", choices=PRESETS)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--height", type=int, default=360, help="pixels")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--expressions", type=int, default=4)
    parser.add_argument("--rows", type=int, help="frames x expressions segmented at once (what suits the device)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", help="cuda or cpu (the best there is)")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    main(parser.parse_args())
