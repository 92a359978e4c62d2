"""Measures scoring beside plain implementations of the protocol, with scikit-image and OpenCV. `make bench`.

All score the same made-up tracks from the same run-length masks, J and F a frame, and should agree. Prints masks/s and
the numbers, and asserts nothing about time. The plain ones differ in how they widen a contour: scikit-image's dilation
by a disk (as the protocol says it), its distance transform, OpenCV's dilation (as the official evaluation does).
"""

import argparse
import math
import platform
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from skimage.morphology import dilation, disk, isotropic_dilation

from pipelines.predictions import Prediction, QueryTrack
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.score import figures, score_video
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import masks_to_rles, rles_to_masks

TOLERANCE = 0.008


def main(arguments: argparse.Namespace) -> None:
    cv2.setNumThreads(1)  # a worker has one core; so has the plain implementation
    size = (arguments.height, arguments.width)
    videos = [made_up(size, arguments.frames, arguments.expressions, seed) for seed in range(arguments.videos)]
    frames = arguments.videos * arguments.frames * arguments.expressions
    print(
        f"{platform.processor() or platform.machine()}, 1 thread; {arguments.videos} videos of {arguments.frames} "
        f"frames {size[1]}x{size[0]}, {arguments.expressions} expressions each: {frames} masks"
    )
    started = time.perf_counter()
    found = figures([row for truth, predictions in videos for row in score_video(truth, predictions)])
    ours = time.perf_counter() - started
    _tell("ours", frames / ours, found["J"], found["F"], "")
    for name, widen in PLAIN.items():
        started = time.perf_counter()
        j, f = np.mean([plain_scores(truth, predictions, widen) for truth, predictions in videos], axis=0)
        plain = time.perf_counter() - started
        off = max(abs(found["J"] - j), abs(found["F"] - f))
        _tell(name, frames / plain, j, f, f"ours is {plain / ours:.1f} times as fast, off by {off:.1e}")


def _tell(name: str, speed: float, j: float, f: float, more: str) -> None:
    print(f"{name:24} {speed:9.1f} masks/s   J {j:.12f}  F {f:.12f}  {more}")


def _dilated(line: np.ndarray, radius: int) -> np.ndarray:
    return dilation(line.astype(np.uint8), disk(radius)).astype(bool)


def _isotropic(line: np.ndarray, radius: int) -> np.ndarray:
    return isotropic_dilation(line, radius)


def _opencv(line: np.ndarray, radius: int) -> np.ndarray:
    return cv2.dilate(line.astype(np.uint8), np.asarray(disk(radius), dtype=np.uint8)).astype(bool)


Widen = Callable[[np.ndarray, int], np.ndarray]
PLAIN: dict[str, Widen] = {
    "scikit-image, disk": _dilated,
    "scikit-image, distance": _isotropic,
    "OpenCV, disk": _opencv,
}


def made_up(size: tuple[int, int], frames: int, expressions: int, seed: int) -> tuple[VideoTruth, list[Prediction]]:
    """A video with an object for every two expressions, ragged and moving, and predictions that are a little off."""
    rng = np.random.default_rng(seed)
    objects = {
        number: ObjectTrack(number, tuple(masks_to_rles(blob(rng, size, frames))))
        for number in range(1, (expressions + 1) // 2 + 1)
    }
    said = tuple(Expression(str(number), "it", (number // 2 + 1,)) for number in range(expressions))
    names = tuple(f"{number:05d}" for number in range(frames))
    truth = VideoTruth("ref-youtube-vos", "valid", f"video {seed}", size, names, objects, said)
    return truth, [_prediction(truth, one, rng) for one in said]


def blob(rng: np.random.Generator, size: tuple[int, int], frames: int) -> np.ndarray:
    """A ragged ellipse of about a tenth of the frame that drifts."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    centre = rng.uniform(0.3, 0.6, 2) * size
    drift, radii = rng.uniform(-2, 2, 2), rng.uniform(0.12, 0.25, 2) * size
    angle = np.arctan2(y - centre[0], x - centre[1])
    ragged = 1 + 0.15 * np.sin(rng.integers(3, 9) * angle) + 0.03 * np.sin(40 * angle)
    masks = [
        np.hypot((y - centre[0] - drift[0] * t) / radii[0], (x - centre[1] - drift[1] * t) / radii[1]) < ragged
        for t in range(frames)
    ]
    return np.stack(masks)


def plain_scores(truth: VideoTruth, predictions: Sequence[Prediction], widen: Widen) -> tuple[float, float]:
    """J and F of a video, frame by frame, as the protocol says it."""
    j, f = [], []
    for expression, prediction in zip(truth.expressions, predictions, strict=True):
        wanted = [truth.rle(expression, frame) or "" for frame in range(len(truth.frame_names))]
        pairs = zip(
            rles_to_masks(prediction.queries[0].rle, truth.size), rles_to_masks(wanted, truth.size), strict=True
        )
        scores = [(_jaccard(*pair), _boundary_f(*pair, widen)) for pair in pairs]
        j.append(np.mean([one for one, _ in scores]))
        f.append(np.mean([one for _, one in scores]))
    return float(np.mean(j)), float(np.mean(f))


def _jaccard(result: np.ndarray, truth: np.ndarray) -> float:
    union = np.logical_or(result, truth).sum()
    return np.logical_and(result, truth).sum() / union if union else 1.0


def _boundary_f(result: np.ndarray, truth: np.ndarray, widen: Widen) -> float:
    radius = math.ceil(TOLERANCE * math.hypot(*result.shape))
    lines = [_boundary(result), _boundary(truth)]
    counts = [line.sum() for line in lines]
    if not all(counts):
        return float(counts[0] == counts[1])
    near = [widen(line, radius) for line in lines]
    precision, recall = (lines[0] & near[1]).sum() / counts[0], (lines[1] & near[0]).sum() / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the next to the right, below or both; in the last row or column from one of them."""
    right, below, both = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], below[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    line = (mask ^ right) | (mask ^ below) | (mask ^ both)
    line[-1], line[:, -1] = (mask ^ right)[-1], (mask ^ below)[:, -1]
    line[-1, -1] = False
    return line


def _prediction(truth: VideoTruth, expression: Expression, rng: np.random.Generator) -> Prediction:
    masks = rles_to_masks([truth.rle(expression, frame) or "" for frame in range(len(truth.frame_names))], truth.size)
    t = len(masks)
    rles = masks_to_rles(np.roll(masks, tuple(rng.integers(-9, 10, 2)), axis=(1, 2)))
    return Prediction(
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression.id,
        text="it",
        width=truth.size[1],
        height=truth.size[0],
        frame_names=truth.frame_names,
        queries=(QueryTrack(tuple(rles), ((0.0, 0.0, 0.0, 0.0),) * t, (1.0,) * t),),
        score=1.0,
        fingerprint="",
        source="",
        source_fingerprint="",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--expressions", type=int, default=4)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    main(parser.parse_args())
