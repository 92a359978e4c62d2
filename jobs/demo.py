"""The whole story on a small made-up dataset: prepare, pre-train, fine-tune, predict, zip, score. On a CPU, in minutes.

The data are drawn in the official layouts of RefCOCO and Ref-YouTube-VOS; every step is a Ray job, tracked in MLflow.
Again, it goes on where it was stopped and reuses what is done. --data DIR takes a real Ref-YouTube-VOS folder instead;
what cannot be read of it is left out, and said.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jobs.common.cli import Exit, run
from jobs.common.submitter import Submitter, said
from pipelines.config_io import write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.scoring.baselines import box_everywhere, mean_box, whole_frame
from pipelines.scoring.score import figures, score_video
from pipelines.scoring.shuffled import write_shuffled
from pipelines.scoring.truth_parts import read_truths
from pipelines.session import durable_folder
from pipelines.sources.synthetic import SyntheticConfig, write_synthetic
from pipelines.sources.synthetic_scene import EASY, PLAIN

Figures = Mapping[str, float]
"""Scores by name: J, F, J&F, …"""

SIDE = 160
"""Pixels a side of the made-up frames: the fewest the model takes."""


@dataclass(frozen=True)
class DemoConfig:
    """How much to draw and to learn. The defaults take a few minutes on two cores."""

    storage: str = "runs"
    """Folder for everything: data, runs, MLflow's database, results."""
    data: str = ""
    """A Ref-YouTube-VOS folder as its owners distribute it, instead of made-up data."""
    images: int = 500
    """Made-up images to pre-train on."""
    videos: int = 80
    """Made-up videos to fine-tune on."""
    valid_videos: int = 12
    """Made-up videos to be asked about, none of which was learned from."""
    pretrain_steps: int = 200
    """Optimiser steps of 4 images."""
    finetune_steps: int = 80
    """Optimiser steps of 4 clips."""
    workers: int = 2
    """Training processes."""
    shuffled: bool = False
    """Also ask with the sentences of a video shuffled: how much the model needs their words."""
    seed: int = 0
    """Of the drawing and of the training."""


@dataclass(frozen=True)
class Results:
    """Figures of the model and of what it should beat, and where to look. `shuffled` is None where it was not asked."""

    model: Figures
    whole_frame: Figures
    mean_box: Figures
    shuffled: Figures | None
    submission: Path
    pictures: Path


def main(config: DemoConfig) -> Exit:
    """Runs every step that is not done yet, prints the scores and where everything lies.

    Raises:
        JobError: a step failed; its log is printed.
    """
    results = demo(config)
    rows = {"J&F": ("SgMg tiny", results.model)}
    if results.shuffled is not None:
        rows["shuffled"] = ("the same, sentences shuffled", results.shuffled)
    rows["mean_box"] = ("a box at the mean position", results.mean_box)
    rows["whole_frame"] = ("the whole frame", results.whole_frame)
    print()
    for name, found in rows.values():
        print(f"{name:30}", "   ".join(f"{measure} {100 * found[measure]:5.1f}" for measure in ("J", "F", "J&F")))
    named = {key: found["J&F"] for key, (_, found) in rows.items()}
    (out_folder(config) / "results.json").write_text(json.dumps(named) + "\n", encoding="utf-8")
    print("\nRESULT", *(f"{name}={value:.4f}" for name, value in named.items()))
    picture = out_folder(config) / "demo.png"
    _best_cases(results.pictures).save(picture)
    print(f"picture      {picture}")
    print(f"submission   {results.submission}\npictures     {results.pictures}")
    print(f"runs         make ui STORAGE={durable_folder(config.storage, '--storage').path()}")
    if named["J&F"] <= max(named["whole_frame"], named["mean_box"]):
        raise JobError("The model is no better than a baseline: it has not learned. Give it more steps.")
    return Exit.CLEAN


def out_folder(config: DemoConfig) -> Path:
    """Where everything but runs and MLflow lies."""
    return Path(durable_folder(config.storage, "--storage").path()) / "demo"


def demo(config: DemoConfig) -> Results:
    """The steps, in order; each is skipped by its own job where it is done."""
    out = out_folder(config)
    root = out.parent
    write_config(Folder(str(out)), config)
    with Submitter() as jobs:
        if config.data:
            return _on_real_data(config, Path(config.data).expanduser().resolve(), root, out, jobs)
        return _on_made_up_data(config, root, out, jobs)


def _on_made_up_data(config: DemoConfig, root: Path, out: Path, jobs: Submitter) -> Results:
    drawn = SyntheticConfig(
        seed=config.seed, train_images=config.images, train_videos=config.videos, valid_videos=config.valid_videos,
        width=SIDE, height=SIDE, variety=EASY, image_variety=PLAIN,
    )  # fmt: skip
    with said("draw the dataset"):
        raw = write_synthetic(out / "raw", drawn)
    images, train, valid = (out / "prepared" / name for name in ("images", "train", "valid"))
    jobs.run("prepare", "--dataset refcoco --split train --show 8", raw=raw.refcoco, out=images)
    jobs.run("prepare", "--dataset ref-youtube-vos --split train --show 8", raw=raw.ytvos, out=train)
    jobs.run("prepare", "--dataset ref-youtube-vos --split valid", raw=raw.ytvos, out=valid)
    # A core each, so that two of them do not get into each other's way.
    common = f"--recipe tiny --workers {config.workers} --cpus-per-worker 0.5 --threads 1 --name demo"
    learn = f"{common} --seed {config.seed} --epochs 100"
    asked = f"{learn} --max-steps {config.pretrain_steps}"
    jobs.run("pretrain_refcoco", asked, storage=root, data=images, tokenizer_data=train)
    start = root / "pretrain" / "demo"
    jobs.run("finetune_ytvos", f"{learn} --max-steps {config.finetune_steps}", storage=root, data=train, init=start)
    truth = raw.valid_truth
    checkpoint = root / "finetune" / "demo"
    score = _asked(jobs, valid, checkpoint, truth, root, out / "valid")
    submission = out / "ref-youtube-vos.zip"
    jobs.run("submit", "--format ref-youtube-vos", predictions=out / "valid", meta=raw.ytvos, out=submission)
    shuffled = None
    if config.shuffled:
        write_shuffled(Folder(str(valid)), Folder(str(out / "prepared" / "shuffled")), str(truth))
        shuffled = _asked(jobs, out / "prepared" / "shuffled", checkpoint, truth, root, out / "shuffled")
    whole, box = _baselines(truth, train)
    return Results(score, whole, box, shuffled, submission, out / "valid" / "scores" / "pictures")


def _on_real_data(config: DemoConfig, raw: Path, root: Path, out: Path, jobs: Submitter) -> Results:
    """Truth of valid is withheld: scored is what was learned from, so the figure says only that learning works.

    Real data may be damaged somewhere: what cannot be used is left out, of the submission too, and is empty to scores.
    """
    train, valid = (out / "prepared" / name for name in ("train", "valid"))
    for split, folder in (("train", train), ("valid", valid)):
        jobs.run("prepare", f"--dataset ref-youtube-vos --split {split} --allow-failures", raw=raw, out=folder)
    common = f"--recipe tiny --workers {config.workers} --cpus-per-worker 0.5 --threads 1 --name demo"
    learn = f"{common} --seed {config.seed} --epochs 100"
    jobs.run("pretrain_refcoco", f"{learn} --max-steps {config.pretrain_steps}", storage=root, data=train)
    start = root / "pretrain" / "demo"
    jobs.run("finetune_ytvos", f"{learn} --max-steps {config.finetune_steps}", storage=root, data=train, init=start)
    checkpoint = root / "finetune" / "demo"
    asked = f"--short-side {SIDE} --allow-failures"
    jobs.run("predict", asked, data=valid, checkpoint=checkpoint, storage=root, out=out / "valid")
    submission = out / "ref-youtube-vos.zip"
    words = "--format ref-youtube-vos --allow-missing"
    jobs.run("submit", words, may_lack=True, predictions=out / "valid", meta=raw, out=submission)
    score = _asked(jobs, train, checkpoint, train, root, out / "train", may_lack=True)
    whole, box = _baselines(train, train)
    return Results(score, whole, box, None, submission, out / "train" / "scores" / "pictures")


def _asked(
    jobs: Submitter, data: Path, checkpoint: Path, truth: Path, root: Path, out: Path, may_lack: bool = False
) -> Figures:
    """The scores of a checkpoint on prepared data."""
    asked, scored = (" --allow-failures", " --missing-as-empty") if may_lack else ("", "")
    jobs.run("predict", f"--short-side {SIDE}{asked}", data=data, checkpoint=checkpoint, storage=root, out=out)
    scores = out / "scores"
    jobs.run("evaluate", f"--pictures 3{scored}", predictions=out, truth=truth, out=scores, frames=data, storage=root)
    return json.loads((scores / "scores.json").read_text(encoding="utf-8"))["figures"]


def _best_cases(pictures: Path) -> Image.Image:
    """The three best expressions, one below the other."""
    shown = [Image.open(file) for file in sorted(pictures.glob("best-*.png"))[:3]]
    sheet = Image.new("RGB", (max(one.width for one in shown), sum(one.height for one in shown)))
    top = 0
    for one in shown:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet


def _baselines(truth: Path, train: Path) -> tuple[Figures, Figures]:
    """The scores of the whole frame, and of a box where objects were on average in what was learned from."""
    truths = list(read_truths(str(truth)))
    box = mean_box(read_truths(str(train)))
    whole = [row for one in truths for row in score_video(one, whole_frame(one))]
    boxes = [row for one in truths for row in score_video(one, box_everywhere(one, box, "mean box"))]
    return figures(whole), figures(boxes)


if __name__ == "__main__":
    run(DemoConfig, main)
