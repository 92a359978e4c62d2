"""Measures causal segmentation: quality beside the offline mode, and the time a frame takes. `make bench`.

Quality is J&F of `Segmenter.stream` and of `Segmenter` over whole videos, on the prepared validation set of the demo.
Times are of the same videos, frame by frame: with one and with four sentences, on frames after the first few, whose
context is full; and from a new stream to its first mask, sentences encoded. Prints `name value` lines with machine and
versions; asserts nothing about time. On a GPU: `--device cuda --precision bfloat16`.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, UInt8

from pipelines.images import decode_image
from pipelines.records import Record, record_of
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import read_truths
from sgmg.masks import rles_to_masks
from sgmg.metrics import TrackScores, score_track, total_scores
from sgmg.segmenter import Segmenter

QUESTIONS = ("the object on the left", "the object on the right", "the small one", "the one that moves")
"""As many sentences as times are measured with."""

Lines = dict[str, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """A video with its truth.

    Attributes:
        frames: RGB.
        truth: masks by sentence, of the frames that are annotated.
        annotated: indices of these frames, by sentence.
    """

    name: str
    frames: UInt8[np.ndarray, "t h w 3"]
    truth: dict[str, Bool[np.ndarray, "n h w"]]
    annotated: dict[str, list[int]]


def clips_of(folder: Path, truths: Path) -> Iterator[Clip]:
    """Yields the videos of a prepared folder, with their truth from another.

    Raises:
        FileNotFoundError: there are no videos.
    """
    if not (files := sorted(folder.glob("*.parquet"))):
        raise FileNotFoundError(f"{folder} holds no prepared videos. Run `make demo`, or give --data.")
    by_video = {one.video: one for one in read_truths(str(truths))}
    for file in files:
        for row in pq.read_table(file).to_pylist():
            record = record_of(row)
            yield _clip(record, by_video[record.video])


def _clip(record: Record, truth: VideoTruth) -> Clip:
    annotated = {one.text: truth.scored_frames(one) for one in truth.labelled_expressions}
    rles = {one.text: [truth.rle(one, t) or "" for t in annotated[one.text]] for one in truth.labelled_expressions}
    frames = np.stack([decode_image(frame, (record.height, record.width)) for frame in record.frames])
    masks = {text: rles_to_masks(of_text, truth.size) for text, of_text in rles.items()}
    return Clip(record.video, frames, masks, annotated)


def quality(segmenter: Segmenter, clips: Sequence[Clip]) -> Lines:
    """Returns J&F of both modes."""
    offline: list[TrackScores] = []
    causal: list[TrackScores] = []
    for clip in clips:
        sentences = list(clip.truth)
        stream = segmenter.stream(sentences)
        whole = segmenter(clip.frames, sentences).masks
        as_they_come = np.stack([stream.push(frame).masks for frame in clip.frames], axis=1)
        for number, (sentence, truth) in enumerate(clip.truth.items()):
            name, places = f"{clip.name}: {sentence}", clip.annotated[sentence]
            offline.append(score_track(name, whole[number, places], truth))
            causal.append(score_track(name, as_they_come[number, places], truth))
    scores = {"offline": total_scores(offline).jf_mean, "causal": total_scores(causal).jf_mean}
    return {f"{mode}_jf": score for mode, score in scores.items()}


def speed(segmenter: Segmenter, frames: UInt8[np.ndarray, "t h w 3"], count: int, streams: int) -> Lines:
    """Returns milliseconds of a frame and of the first mask, frames a second, and the memory of a stream.

    Args:
        segmenter: the model.
        frames: pushed over and over.
        count: frames that are timed.
        streams: new streams whose first mask is timed.
    """
    lines: Lines = {}
    for sentences in (1, 4):
        stream = segmenter.stream(QUESTIONS[:sentences])
        pushes = [_seconds(stream.push, frame) for frame in islice(cycle(frames), 8 + count)][8:]
        lines[f"ms_a_frame_{sentences}"] = 1000 * statistics.median(pushes)
        lines[f"frames_per_second_{sentences}"] = len(pushes) / sum(pushes)
        lines[f"state_bytes_{sentences}"] = stream.bytes
    first = [_seconds(lambda frame: segmenter.stream(QUESTIONS[:1]).push(frame), frames[0]) for _ in range(streams)]
    return lines | {"first_mask_ms_p95": 1000 * float(np.quantile(first, 0.95))}


def _seconds(push: Callable[[UInt8[np.ndarray, "h w 3"]], object], frame: UInt8[np.ndarray, "h w 3"]) -> float:
    started = time.perf_counter()
    push(frame)  # its masks lie in the memory of the CPU, so a GPU is done too
    return time.perf_counter() - started


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    clips = list(clips_of(arguments.data, arguments.truth))
    height, width = clips[0].frames.shape[1:3]
    for kind, checkpoint in (("single", arguments.checkpoint), ("multi", arguments.multi_checkpoint)):
        if checkpoint is None:
            continue
        segmenter = Segmenter.from_checkpoint(
            newest(checkpoint), device=arguments.device, precision=arguments.precision, short_side=arguments.short_side
        )
        where = torch.cuda.get_device_name() if segmenter.device.type == "cuda" else platform.machine()
        print(
            f"# {kind}: {len(clips)} videos, the first {height}x{width}, short side {arguments.short_side}, "
            f"{segmenter.precision}, torch {torch.__version__}, {where}, {arguments.threads} threads"
        )
        segmenter.stream(QUESTIONS).push(clips[0].frames[0])  # the first call of all is no measure of anything
        lines = quality(segmenter, clips) | speed(segmenter, clips[0].frames, arguments.frames, arguments.streams)
        for name, value in lines.items():
            print(f"{kind}_{name} {value:.4g}" if value < 1e4 else f"{kind}_{name} {value:.0f}")


def newest(run: Path) -> Path:
    """Returns the newest checkpoint of a training run; any other path as it is."""
    return max(run.glob("step_*"), default=run)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/finetune/demo"))
    parser.add_argument("--multi-checkpoint", type=Path, help="of a multi-object model, measured too")
    parser.add_argument("--data", type=Path, default=Path("runs/demo/prepared/valid"))
    parser.add_argument("--truth", type=Path, default=Path("runs/demo/raw/truth/valid"))
    parser.add_argument("--short-side", type=int, default=160, help="pixels; what the demo is trained with")
    parser.add_argument("--frames", type=int, default=40, help="that are timed")
    parser.add_argument("--streams", type=int, default=20, help="whose first mask is timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", help="cuda or cpu (the best there is)")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    main(parser.parse_args())
