"""Measures bulk prediction: frames/s with several sentences a video, beside running the model again for each.

Times the predictor that every actor of jobs/predict.py holds, with decoding and run-length encoding, and asserts
nothing about time. On a GPU: `--device cuda --precision bfloat16 --frames 36`.
"""

import argparse
import platform
import statistics
import time
from dataclasses import replace

import cv2
import numpy as np
import torch

from pipelines.inference.predictor import Predictor
from pipelines.inference.protocols import inference_protocol
from pipelines.records import Expression, Record
from sgmg.config import PRESETS, SgMgConfig
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer


def a_video(frames: int, height: int, width: int, sentences: list[str]) -> Record:
    """Coarse colours that move, as JPEG."""
    cells = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8 + frames, 3), dtype=np.uint8)
    pixels = cells.repeat(8, axis=0).repeat(8, axis=1)
    shown = [np.ascontiguousarray(pixels[:, 8 * number : 8 * number + width]) for number in range(frames)]
    return Record(
        dataset="ref-youtube-vos",
        split="valid",
        video="made up",
        width=width,
        height=height // 8 * 8,
        original_width=width,
        original_height=height // 8 * 8,
        frame_names=tuple(f"{number:05d}" for number in range(frames)),
        frames=tuple(cv2.imencode(".jpg", frame)[1].tobytes() for frame in shown),
        objects=(),
        expressions=tuple(Expression(str(number), text) for number, text in enumerate(sentences)),
        source="made up",
        source_fingerprint="",
    )


def seconds(predictor: Predictor, records: list[Record], repeats: int) -> float:
    """Median time to predict all the records."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        for record in records:
            predictor.predict(record)  # ends with masks on the CPU, so there is nothing to wait for
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    most = max(arguments.expressions)
    sentences = [f"the {number}th dog from the left" for number in range(most)]
    predictor = Predictor(
        SgMg(SgMgConfig.preset(arguments.preset)),
        Tokenizer.train(sentences),
        inference_protocol("ref-youtube-vos", short_side=min(arguments.height, arguments.width)),
        device=arguments.device,
        precision=arguments.precision,
        rows=arguments.rows,
    )
    record = a_video(arguments.frames, arguments.height, arguments.width, sentences)
    predictor.predict(replace(record, expressions=record.expressions[:1]))  # The first call is no measure of anything.
    device = predictor.device
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(
        f"{arguments.preset}, {arguments.frames}x{arguments.height}x{arguments.width} frames x height x width, "
        f"{arguments.precision}, torch {torch.__version__}, {where}, {arguments.threads} threads, median of "
        f"{arguments.repeats}"
    )
    for count in arguments.expressions:
        together = replace(record, expressions=record.expressions[:count])
        alone = [replace(record, expressions=(expression,)) for expression in together.expressions]
        once, again = seconds(predictor, [together], arguments.repeats), seconds(predictor, alone, arguments.repeats)
        print(
            f"{count:3} expressions: {arguments.frames / once:7.2f} frames/s encoded once, "
            f"{arguments.frames / again:7.2f} frames/s run again for each, {again / once:.2f} times faster"
        )
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="video-swin-t", choices=PRESETS)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--height", type=int, default=360, help="pixels")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--expressions", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rows", type=int, help="frames x expressions segmented at once (what suits the device)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", help="cuda or cpu (the best there is)")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    main(parser.parse_args())
