"""Measures how much faster the model is than the published way of computing it (`reference/`). `make bench`.

Both run in turns in one process, on video-swin-t and 8 frames of 360x640; a training step on one clip of 5 frames. The
reference runs the whole model for each sentence, in float32. Prints what was reached as `name value` lines: ratios for
1, 4 and 8 sentences and for a training step, how far arithmetic and memory are from being the limit, the time that a
fresh process takes to load a checkpoint and answer, and the agreement of the masks in bfloat16 with those in float32.
On a CPU the training steps are measured once more, with memory as a training worker has it (`kept_memory`).

The reference is split as the published code is. Its products are the same part by part (`tests/test_reference.py`).
Of its time the backbone takes 46 %, the text 0.3 %, filters and fusion 9 %, the transformer 42 %, the masks 3 % (one
thread of an Intel Xeon); of the published code they take 47, 0.3, 9, 42 and 3 % (two cores of an AMD EPYC,
`../shared/parity/baseline.json`).
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests/parity")]

import torch
from reference.measuring import SHORT, copy_rate, counted, in_turns, median_ratio, product_rate
from reference.model import segment as segment_as_published
from reference.training import WORDS, PublishedStep, in_floats, training_clip
from torch import Tensor

from model_cases import batch_of, config_of, published_model
from pack import GOLDEN, ROOT, cases
from sgmg.checkpoints import save
from sgmg.config import Precision, SgMgConfig
from sgmg.decoding import best_query, mask_from_logits
from sgmg.host_memory import keep_freed_memory
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import optimizer_for
from sgmg.precision import autocast, computes_bfloat16
from sgmg.preprocess import pad_clips
from sgmg.segmenter import CPU_ROWS, GPU_ROWS, best_device, groups_of, segment_in_parts, slices
from sgmg.tokenizer import Tokenizer
from sgmg.train_step import MicroBatch, TrainStep

SENTENCES = (1, 4, 8)
CASE = "e2e_vst_ytvos_odd"
FIRST_ANSWER = """
import sys, time
laps = [float(sys.argv[1]), time.time()]
import numpy as np
from sgmg.segmenter import Segmenter
laps.append(time.time())
height, width = int(sys.argv[4]), int(sys.argv[5])
segmenter = Segmenter.from_checkpoint(sys.argv[2], device=sys.argv[3], short_side=min(height, width))
laps.append(time.time())
frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
segmenter(frames, ["the dog on the left"])
laps.append(time.time())
print(*(after - before for before, after in zip(laps, laps[1:])))
"""
"""Program that loads a checkpoint and answers once, and prints the seconds of its parts."""

Lines = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and where."""

    device: torch.device
    precisions: tuple[Precision, ...]
    frames: int
    rounds: int
    preset: str = "video-swin-t"
    size: tuple[int, int] = (360, 640)
    clip: int = 5  # frames that are trained on at once

    @property
    def kind(self) -> str:
        return "gpu" if self.device.type == "cuda" else "cpu"

    @property
    def product(self) -> int:
        """Side of the matrices whose product is timed."""
        return 512 if self.preset == "tiny" else 8192 if self.kind == "gpu" else 2048

    def quick(self) -> "Setting":
        """Returns a setting that runs everything, in seconds, and measures nothing."""
        return replace(self, frames=3, rounds=1, preset="tiny", size=(144, 160), clip=2)

    def __str__(self) -> str:
        where = torch.cuda.get_device_name() if self.kind == "gpu" else platform.processor() or platform.machine()
        return (
            f"{self.preset}, {self.frames} frames of {self.size[0]}x{self.size[1]}, torch {torch.__version__}, "
            f"{where}, {torch.get_num_threads()} threads, medians of {self.rounds}"
        )


class Clip:
    """A clip with as many sentences as are needed, and the two ways of segmenting it.

    Args:
        setting: what is measured.
        sentences: most that are asked.
        multi_object: whether the model answers them in one pass.
    """

    def __init__(self, setting: Setting, sentences: int = max(SENTENCES), *, multi_object: bool = False) -> None:
        self.device, self.size = setting.device, setting.size
        config = replace(SgMgConfig.preset(setting.preset), multi_object=multi_object)
        self.model = SgMg(config).eval().to(self.device)
        parts = pad_clips([torch.randn(setting.frames, 3, *setting.size)], 16)
        self.frames, self.padding, self.sizes = (part.to(self.device) for part in parts)
        self.token_ids = torch.randint(4, 2000, (sentences, WORDS), device=self.device)
        self.token_padding = torch.zeros(sentences, WORDS, dtype=torch.bool, device=self.device)
        self.rows = CPU_ROWS if self.device.type == "cpu" else GPU_ROWS

    def ours(self, sentences: int, precision: Precision) -> Tensor:
        """Returns masks of the first sentences, as `Segmenter` does; a multi-object model is asked all in one pass."""
        with autocast(self.device, precision):
            text = self.model.encode_text(self.token_ids[:sentences], self.token_padding[:sentences])
            video = self.model.encode_video(self.frames, self.padding)
            masks = []
            for group in groups_of(self.model, sentences, sentences, self.rows // self.frames.shape[1]):
                out = segment_in_parts(self.model, video, text.expressions(group), self.sizes, self.rows)
                query = best_query(out.scores[-1])
                masks += [
                    mask_from_logits(self.model.refine(video.frames(some), out.frames(some), query))
                    for some in slices(self.frames.shape[1], self.rows)
                ]
        return torch.cat([mask.flatten() for mask in masks])

    def published(self, precision: Precision = "float32") -> Tensor:
        """Returns the mask of the first sentence, computed as the published code does."""
        with autocast(self.device, precision):
            out = segment_as_published(
                self.model, self.frames, self.padding, self.size, self.token_ids[:1], self.token_padding[:1]
            )
        return mask_from_logits(out.masks)


def inference(setting: Setting, clip: Clip) -> Lines:
    """Measures segmenting: ratios to the reference, seconds, and shares of what the machine can do."""
    kind, device = setting.kind, setting.device
    work: dict[Precision, tuple[int, int]]
    work = {precision: counted(partial(clip.ours, 1, precision), clip.model) for precision in setting.precisions}
    references: tuple[Precision, ...] = setting.precisions if kind == "gpu" else ("float32",)
    published = {f"reference_{SHORT[precision]}": partial(clip.published, precision) for precision in references}
    ours = {f"{SHORT[p]}_{n}": partial(clip.ours, n, p) for p in setting.precisions for n in SENTENCES}
    with torch.inference_mode():
        taken = in_turns(published | ours, setting.rounds, device, first=published)  # ours were counted just now
    lines = {f"{kind}_{way}_seconds": statistics.median(runs) for way, runs in taken.items()}
    copies = copy_rate((2048 if kind == "gpu" else 256) * 2**20, device)
    for precision, (operations, moved) in work.items():
        short = SHORT[precision]
        for other in dict.fromkeys(("fp32", short)):
            to = "" if other == "fp32" else f"_to_{other}"
            for n in SENTENCES if f"reference_{other}" in taken else ():
                ratio = n * median_ratio(taken[f"reference_{other}"], taken[f"{short}_{n}"])
                lines[f"{kind}_{short}_ratio{to}_{n}"] = ratio
        products = product_rate(setting.product, getattr(torch, precision), device)
        took = lines[f"{kind}_{short}_1_seconds"]
        lines |= {
            f"{kind}_{short}_frames_per_second": setting.frames / took,
            f"{kind}_{short}_product_tflops": products / 1e12,
            f"{kind}_{short}_share_of_products": operations / took / products,
            f"{kind}_{short}_share_of_copies": moved / took / copies,
        }
    return lines | {f"{kind}_copy_gb_per_second": copies / 1e9}


def training(setting: Setting) -> Lines:
    """Measures a step on one clip and sentence, RoBERTa frozen: ratios to the reference in float32, and seconds."""
    model, micro_batch = learner(setting)
    there = (in_floats(micro_batch.batch).to(setting.device), micro_batch.targets.to(setting.device))
    published, optimizer = PublishedStep(model), optimizer_for(model)
    ways: dict[str, Callable[[], object]] = {"reference": lambda: published(*there)}
    for precision in setting.precisions:
        step = TrainStep(Objective(model), optimizer, device=setting.device, precision=precision)
        ways[SHORT[precision]] = partial(step, [micro_batch], 0)
    taken = in_turns(ways, setting.rounds, setting.device)
    lines = {f"{setting.kind}_{way}_train_seconds": statistics.median(runs) for way, runs in taken.items()}
    for precision in setting.precisions:
        short = SHORT[precision]
        lines[f"{setting.kind}_{short}_train_ratio"] = median_ratio(taken["reference"], taken[short])
    return lines


def training_as_workers_do(setting: Setting, lines: Lines) -> Lines:
    """Measures the steps once more on a CPU, with memory as a training worker has it; the published code has it not.

    To be run last: the process stays so.

    Args:
        setting: what is measured.
        lines: those of `training`.
    """
    if setting.kind == "gpu" or not keep_freed_memory():
        return {}
    kept, found = training(setting), {}
    for way in ("reference", *(SHORT[precision] for precision in setting.precisions)):
        took = kept[f"cpu_{way}_train_seconds"]
        found[f"cpu_{way}_train_kept_memory_seconds"] = took
        found[f"cpu_{way}_train_kept_memory_gain"] = lines[f"cpu_{way}_train_seconds"] / took
    return found


def learner(setting: Setting) -> tuple[SgMg, MicroBatch]:
    """Returns a model that is trained as the recipe `finetune` has it, and a clip as its loader gives it."""
    model = SgMg(SgMgConfig.preset(setting.preset)).train()
    model.text.freeze(keep=8192)
    batch, targets = training_clip(setting.clip, setting.size)
    if setting.kind == "gpu":
        batch, targets = batch.pinned(), targets.pinned()
    return model.to(setting.device), MicroBatch(batch, targets, seed=0)


def load_and_first_answer(setting: Setting) -> Lines:
    """Measures a fresh process that loads a checkpoint and segments 2 frames; all its seconds, and those of its parts.

    Its files were just written, so that they are still in memory.
    """
    sentences = [f"the {number}th dog from the left" for number in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "model"), SgMg(SgMgConfig.preset(setting.preset)), tokenizer=Tokenizer.train(sentences))
        command = [sys.executable, "-c", FIRST_ANSWER, str(time.time()), f"{folder}/model", str(setting.device)]
        ended = subprocess.run(
            [*command, *map(str, setting.size)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )  # fmt: skip
    parts = dict(zip(("start", "imports", "load", "answer"), map(float, ended.stdout.split()), strict=True))
    return {
        "load_and_first_answer_seconds": sum(parts.values()),
        **{f"load_and_first_answer_{part}_seconds": took for part, took in parts.items()},
    }


def mask_iou(setting: Setting) -> Lines:
    """Measures the mean IoU of masks in bfloat16 with those in float32, over frames and sentences of a golden case.

    In a quick setting over those of a model with random weights.
    """
    if setting.preset == "tiny":
        model, (batch, _) = SgMg(SgMgConfig.preset("tiny")).eval(), training_clip(setting.frames, setting.size)
    else:
        case = cases(GOLDEN)[CASE]()
        model, batch = published_model(config_of(case), case.salt), batch_of(case)
    model, batch = model.to(setting.device), batch.to(setting.device)
    found = []
    for precision in ("float32", "bfloat16"):
        with torch.inference_mode(), autocast(setting.device, precision):
            video = model.encode_video(batch.frames, batch.padding, batch.target_frame)
            text = model.encode_text(batch.token_ids, batch.token_padding)
            out = model.segment(video, text, batch.sizes, batch.clip_of)
            found.append(mask_from_logits(model.refine(video, out, best_query(out.scores[-1])).float()).flatten(2))
    exact, reduced = found
    both, either = (exact & reduced).sum(-1), (exact | reduced).sum(-1)
    return {"bf16_mask_iou": ((both + 1e-9) / (either + 1e-9)).mean().item()}


def report(lines: Lines) -> None:
    """Prints a `name value` line each."""
    for name, value in lines.items():
        print(name, f"{value:.4g}", flush=True)


def parsed(description: str | None, *, frames: int, rounds: int, device: str | None = None) -> Setting:
    """Reads the setting from the command line.

    Args:
        description: shown by `--help`.
        frames, rounds, device: defaults; device None is the best there is.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--rounds", type=int, default=rounds, help="that medians are taken of")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default=device, help=f"cuda or cpu (default: {device or 'the best there is'})")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, help="default: where the device has it")
    parser.add_argument("--quick", action="store_true", help="tiny model and frames: runs everything in seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    try:
        chosen = best_device(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    reduced = computes_bfloat16(chosen) if arguments.bfloat16 is None else arguments.bfloat16
    setting = Setting(chosen, ("float32", "bfloat16") if reduced else ("float32",), arguments.frames, arguments.rounds)
    return setting.quick() if arguments.quick else setting


def main(setting: Setting) -> None:
    print(f"# {setting}")
    report(inference(setting, Clip(setting)))
    report(trained := training(setting))
    report(load_and_first_answer(setting))
    if "bfloat16" in setting.precisions:
        report(mask_iou(setting))
    report(training_as_workers_do(setting, trained))


if __name__ == "__main__":
    main(parsed(__doc__, frames=8, rounds=3))
