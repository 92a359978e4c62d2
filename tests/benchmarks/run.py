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

import torch

from sgmg.config import PRESETS, SgMgConfig
from sgmg.decoding import best_query
from sgmg.model import SgMg
from sgmg.preprocess import pad_clips
from sgmg.segmenter import segment_in_parts


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


@torch.inference_mode()
def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = SgMg(SgMgConfig.preset(arguments.preset)).eval().to(device)
    frames, padding, sizes = pad_clips([torch.randn(arguments.frames, 3, arguments.height, arguments.width)], 16)
    frames, padding, sizes = frames.to(device), padding.to(device), sizes.to(device)
    words = torch.randint(4, model.config.text.vocabulary, (arguments.expressions, 10), device=device)
    word_padding = torch.zeros_like(words, dtype=torch.bool)
    clip_of = torch.zeros(arguments.expressions, dtype=torch.int64, device=device)
    reduced = arguments.precision != "float32"
    dtype = getattr(torch, arguments.precision) if reduced else None
    with torch.autocast(device.type, dtype=dtype, enabled=reduced):
        video = model.encode_video(frames, padding)
        text = model.encode_text(words, word_padding)
        out = segment_in_parts(model, video, text, sizes, clip_of, arguments.rows)
        query = best_query(out.scores[-1])
        one = (text.expressions(slice(0, 1)), clip_of[:1])
        stages: dict[str, Callable[[], object]] = {
            "backbone": lambda: model.backbone(frames),
            "encode_video": lambda: model.encode_video(frames, padding),
            "encode_text": lambda: model.encode_text(words, word_padding),
            "segment, 1 expression": lambda: segment_in_parts(model, video, one[0], sizes, one[1], arguments.rows),
            f"segment, {arguments.expressions}": lambda: segment_in_parts(
                model, video, text, sizes, clip_of, arguments.rows
            ),
            f"refine, {arguments.expressions}": lambda: model.refine(video, out, query),
        }
        rows = {name: measured(run, arguments.repeats, device) for name, run in stages.items()}
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {arguments.threads} threads"
    )
    print(f"{arguments.preset}, {arguments.frames} frames of {arguments.height}x{arguments.width}, "
          f"{arguments.precision}, torch {torch.__version__}, {where}, median of {arguments.repeats}")  # fmt: skip
    for name, (wall, cpu) in rows.items():
        print(f"{name:24} {wall:8.3f} s   {cpu:8.3f} CPU s   {arguments.frames / wall:8.2f} frames/s")
    shared = rows["encode_video"][0] + rows[f"segment, {arguments.expressions}"][0]
    again = arguments.expressions * (rows["encode_video"][0] + rows["segment, 1 expression"][0])
    print(
        f"{arguments.expressions} expressions of one clip: {again / shared:.2f} times faster than encoding it for each"
    )
    print(f"peak memory {peak_gigabytes(device):.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="video-swin-t", choices=PRESETS)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--height", type=int, default=360, help="pixels")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--expressions", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2, help="frames x expressions segmented at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    main(parser.parse_args())
