"""Teaches the `tiny` model, from nothing and on a CPU, to find what a sentence speaks of in small made-up clips.

It learns for a few minutes, is asked about clips it has never seen, and is scored against two baselines. It leaves a
checkpoint, a picture and an MLflow run behind; `make ui` shows the run. Nothing is downloaded.
"""

import argparse
import itertools
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
import numpy as np
import torch
from PIL import Image, ImageDraw

from sgmg.batch import ClipBatch, ClipTargets
from sgmg.boxes import unit_from_pixels, xyxy_to_cxcywh
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.losses import check_finite
from sgmg.masks import mask_to_xyxy
from sgmg.metrics import score_track, total_scores
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import LearningRates, optimizer_for
from sgmg.preprocess import normalize, pad_clips
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 230), "yellow": (235, 210, 40)}
SHAPES = ("disc", "square", "triangle")
SENTENCES = [f"the {colour} {shape}" for colour, shape in itertools.product(COLOURS, SHAPES)]
SIDE, FRAMES, OBJECTS = 160, 2, 3
TRAIN_SEED, VALID_SEED = 0, 1


@dataclass(frozen=True)
class DemoConfig:
    """What the demo is asked to do."""

    storage: Path = Path("runs")
    steps: int = 250
    clips_per_step: int = 4
    valid_clips: int = 12
    rate: float = 1e-3


@dataclass(frozen=True)
class Clip:
    """Frames, and the mask of what each sentence speaks of."""

    frames: np.ndarray  # t h w 3, uint8
    sentences: list[str]
    masks: np.ndarray  # e t h w, bool


def draw_clip(rng: np.random.Generator) -> Clip:
    """Objects of different colour and shape that cross a noisy background; later ones hide earlier ones."""
    kinds = [SENTENCES[index] for index in rng.permutation(len(SENTENCES))[:OBJECTS]]
    starts, speeds = rng.uniform(25, SIDE - 25, (OBJECTS, 2)), rng.uniform(-12, 12, (OBJECTS, 2))
    radii = rng.uniform(14, 28, OBJECTS)
    frames, masks = [], np.zeros((OBJECTS, FRAMES, SIDE, SIDE), dtype=bool)
    texture = rng.integers(60, 190, (SIDE // 8, SIDE // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    for t in range(FRAMES):
        frame = np.clip(texture + rng.integers(-15, 16, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        for index, kind in enumerate(kinds):
            _, colour, shape = kind.split()
            mask = _shape(shape, starts[index] + t * speeds[index], radii[index])
            masks[:, t, mask] = False
            masks[index, t] = mask
            frame[mask] = COLOURS[colour]
        frames.append(frame)
    return Clip(np.stack(frames), kinds, masks)


def _shape(shape: str, centre: np.ndarray, radius: float) -> np.ndarray:
    x, y = centre
    image = Image.new("1", (SIDE, SIDE))
    draw = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    match shape:
        case "disc":
            draw.ellipse(box, fill=1)
        case "square":
            draw.rectangle(box, fill=1)
        case _:
            draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=1)
    return np.asarray(image)


def batch_of(clips: list[Clip], tokenizer: Tokenizer) -> tuple[ClipBatch, ClipTargets]:
    """Clips as the model sees them, and what it should answer."""
    frames, padding, sizes = pad_clips([normalize(clip.frames) for clip in clips], multiple=32)
    words, word_padding = tokenizer([sentence for clip in clips for sentence in clip.sentences])
    masks = np.concatenate([clip.masks for clip in clips])
    boxes = torch.from_numpy(mask_to_xyxy(masks)).float()
    clip_of = torch.arange(len(clips)).repeat_interleave(OBJECTS)
    valid = torch.from_numpy(masks.any(axis=(2, 3)))
    targets = ClipTargets(
        masks=torch.from_numpy(masks),
        boxes=xyxy_to_cxcywh(unit_from_pixels(boxes, sizes[clip_of][:, None])) * valid[..., None],
        valid=valid,
        weight=valid.any(dim=1).float(),
    )
    return ClipBatch(frames, padding, sizes, words, word_padding, clip_of), targets


def train(config: DemoConfig, tokenizer: Tokenizer) -> SgMg:
    """The model after `steps` of fresh clips."""
    torch.manual_seed(TRAIN_SEED)
    rng = np.random.default_rng(TRAIN_SEED)
    model = SgMg(SgMgConfig.preset("tiny"))
    objective = Objective(model).train()
    rate = config.rate
    optimizer = optimizer_for(model, LearningRates(rate, rate, rate, rate))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, config.steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(config.steps):
        batch, targets = batch_of([draw_clip(rng) for _ in range(config.clips_per_step)], tokenizer)
        losses = objective(batch, targets)
        check_finite(losses, step)
        optimizer.zero_grad()
        losses["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == config.steps - 1:
            logged = {name: loss.item() for name, loss in losses.items()} | {"gradient_norm": norm.item()}
            mlflow.log_metrics(logged, step=step)
            speed = config.clips_per_step * (step + 1) / (time.monotonic() - started)
            print(f"step {step:4} of {config.steps}  loss {logged['total']:7.3f}  {speed:5.1f} clips/s", flush=True)
    return model


def evaluate(clips: list[Clip], segmenter: Segmenter) -> dict[str, float]:
    """J&F of the model, of the whole frame, and of a box in the middle, over clips it has not seen."""
    answers = {"model": [segmenter(clip.frames, clip.sentences).masks for clip in clips]}
    answers["whole frame"] = [np.ones_like(clip.masks) for clip in clips]
    middle = np.zeros((SIDE, SIDE), dtype=bool)
    middle[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = True
    answers["middle box"] = [np.broadcast_to(middle, clip.masks.shape) for clip in clips]
    return {
        name: total_scores(
            score_track(f"{index}: {sentence}", masks[e], clip.masks[e])
            for index, (clip, masks) in enumerate(zip(clips, answer, strict=True))
            for e, sentence in enumerate(clip.sentences)
        ).jf_mean
        for name, answer in answers.items()
    }


def picture(clip: Clip, masks: np.ndarray) -> Image.Image:
    """A row a sentence: the frames, with what was found tinted white and outlined in black."""
    rows = []
    for found in masks:
        tinted = np.where(found[..., None], clip.frames // 3 + 170, clip.frames)
        edge = found & ~(np.roll(found, 2, 1) & np.roll(found, -2, 1) & np.roll(found, 2, 2) & np.roll(found, -2, 2))
        rows.append(np.concatenate([*clip.frames[:1], *np.where(edge[..., None], 0, tinted)], axis=1))
    image = Image.fromarray(np.concatenate(rows).astype(np.uint8)).resize((2 * SIDE * (FRAMES + 1), 2 * SIDE * OBJECTS))
    draw = ImageDraw.Draw(image)
    for row, sentence in enumerate(clip.sentences):
        draw.text((8, 2 * SIDE * row + 6), sentence, fill="white", stroke_width=2, stroke_fill="black", font_size=22)
    return image


def main(config: DemoConfig) -> dict[str, float]:
    """Trains, saves, asks, scores; the J&F of the model and of the baselines."""
    storage = config.storage.resolve()
    out = storage / "demo"
    out.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name("demo")
    experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(
        "demo", artifact_location=(storage / "artifacts").as_uri()
    )  # fmt: skip
    settings = {name: str(value) for name, value in asdict(config).items()}
    (out / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    with mlflow.start_run(experiment_id=experiment_id, log_system_metrics=True):
        mlflow.log_params(settings)
        tokenizer = Tokenizer.train(SENTENCES)
        model = train(config, tokenizer)
        save(out / "checkpoint", model, tokenizer=tokenizer, notes={"data": "made-up clips", "steps": config.steps})
        segmenter = Segmenter.from_checkpoint(out / "checkpoint", short_side=SIDE)
        rng = np.random.default_rng(VALID_SEED)
        clips = [draw_clip(rng) for _ in range(config.valid_clips)]
        scores = evaluate(clips, segmenter)
        mlflow.log_metrics({f"jf {name}": score for name, score in scores.items()})
        picture(clips[0], segmenter(clips[0].frames, clips[0].sentences).masks).save(out / "overlay.png")
        mlflow.log_artifact(str(out / "overlay.png"))
    print()
    for name, score in scores.items():
        print(f"{name:12} J&F {100 * score:5.1f}")
    print(
        f"checkpoint   {out / 'checkpoint'}\npicture      {out / 'overlay.png'}\nruns         make ui STORAGE={storage}"
    )
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, default=DemoConfig.storage, help="folder for the results (%(default)s)")
    parser.add_argument("--steps", type=int, default=DemoConfig.steps, help="optimiser steps (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    found = main(DemoConfig(storage=arguments.storage, steps=arguments.steps))
    if found["model"] <= max(score for name, score in found.items() if name != "model"):
        sys.exit("The model is no better than a baseline: it has not learned.")
