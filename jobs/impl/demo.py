"""Runs every step on a small dataset: the body of jobs/demo.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jobs.common.submitter import Submitter, step
from jobs.demo import DemoConfig
from pipelines.config_io import write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.scoring.baselines import box_everywhere, mean_box, whole_frame
from pipelines.scoring.score import figures, score_video
from pipelines.scoring.shuffled import write_shuffled
from pipelines.scoring.summary import SCORES
from pipelines.scoring.truth_parts import read_truths
from pipelines.session import durable_folder
from pipelines.sources.synthetic import SyntheticConfig, write_synthetic
from pipelines.sources.synthetic_scene import EASY, PLAIN

Figures = Mapping[str, float]
"""Scores by name: J, F, J&F, …"""

SIDE = 160
"""Height and width of the synthetic frames, in pixels: the smallest that the model accepts."""


@dataclass(frozen=True)
class Results:
    """Figures of the model and of the baselines it should beat, and the paths of the results.

    `shuffled` is None without --shuffled.
    """

    model: Figures
    whole_frame: Figures
    mean_box: Figures
    shuffled: Figures | None
    submission: Path
    pictures: Path


def demo(config: DemoConfig) -> Exit:
    """Runs every step that is not finished, and prints the scores and the paths of the results.

    Raises:
        JobError: a step failed; its log is printed.
    """
    results = _run_steps(config)
    rows = {"J&F": ("SgMg tiny", results.model)}
    if results.shuffled is not None:
        rows["shuffled"] = ("the same, sentences shuffled", results.shuffled)
    rows["mean_box"] = ("a box at the mean position", results.mean_box)
    rows["whole_frame"] = ("the whole frame", results.whole_frame)
    print()
    for name, scores in rows.values():
        print(f"{name:30}", "   ".join(f"{measure} {100 * scores[measure]:5.1f}" for measure in ("J", "F", "J&F")))
    named = {key: scores["J&F"] for key, (_, scores) in rows.items()}
    (out_folder(config) / "results.json").write_text(json.dumps(named) + "\n", encoding="utf-8")
    print("\nRESULT", *(f"{name}={value:.4f}" for name, value in named.items()))
    picture = out_folder(config) / "demo.png"
    _best_cases(results.pictures).save(picture)
    print(f"picture      {picture}")
    print(f"submission   {results.submission}\npictures     {results.pictures}")
    print(f"runs         make ui STORAGE={durable_folder(config.storage, '--storage').path()}")
    if named["J&F"] <= max(named["whole_frame"], named["mean_box"]):
        raise JobError("The model is no better than a baseline. Raise --pretrain-steps and --finetune-steps.")
    return Exit.CLEAN


def out_folder(config: DemoConfig) -> Path:
    """Returns the folder of everything except runs and MLflow's database."""
    return Path(durable_folder(config.storage, "--storage").path()) / "demo"


def _run_steps(config: DemoConfig) -> Results:
    """Runs the steps in order; each job skips what it has finished before."""
    out = out_folder(config)
    root = out.parent
    write_config(Folder(str(out)), config)
    with Submitter() as jobs:
        if config.data:
            return _on_real_data(config, Path(config.data).expanduser().resolve(), root, out, jobs)
        return _on_synthetic_data(config, root, out, jobs)


def _on_synthetic_data(config: DemoConfig, root: Path, out: Path, jobs: Submitter) -> Results:
    drawn = SyntheticConfig(
        seed=config.seed, train_images=config.images, train_videos=config.videos, valid_videos=config.valid_videos,
        width=SIDE, height=SIDE, variety=EASY, image_variety=PLAIN,
    )  # fmt: skip
    with step("draw the dataset"):
        raw = write_synthetic(out / "raw", drawn)
    images, train, valid = (out / "prepared" / name for name in ("images", "train", "valid"))
    jobs.run("prepare", "--dataset refcoco --split train --show 8", raw=raw.refcoco, out=images)
    jobs.run("prepare", "--dataset ref-youtube-vos --split train --show 8", raw=raw.ytvos, out=train)
    jobs.run("prepare", "--dataset ref-youtube-vos --split valid", raw=raw.ytvos, out=valid)
    # Half a core each, as Ray counts, so that two workers and the data pipeline fit on two cores.
    common = f"--recipe tiny --workers {config.workers} --cpus-per-worker 0.5 --threads 1 --name demo"
    learn = f"{common} --seed {config.seed} --epochs 100"
    pretrain = f"{learn} --max-steps {config.pretrain_steps}"
    jobs.run("pretrain_refcoco", pretrain, storage=root, data=images, tokenizer_data=train)
    start = root / "pretrain" / "demo"
    jobs.run("finetune_ytvos", f"{learn} --max-steps {config.finetune_steps}", storage=root, data=train, init=start)
    truth = raw.valid_truth
    checkpoint = root / "finetune" / "demo"
    score = _predict_and_score(jobs, valid, checkpoint, truth, root, out / "valid")
    submission = out / "ref-youtube-vos.zip"
    jobs.run("submit", "--format ref-youtube-vos", predictions=out / "valid", meta=raw.ytvos, out=submission)
    shuffled = None
    if config.shuffled:
        write_shuffled(Folder(str(valid)), Folder(str(out / "prepared" / "shuffled")), str(truth))
        shuffled = _predict_and_score(jobs, out / "prepared" / "shuffled", checkpoint, truth, root, out / "shuffled")
    whole, box = _baselines(truth, train)
    return Results(score, whole, box, shuffled, submission, out / "valid" / "scores" / "pictures")


def _on_real_data(config: DemoConfig, raw: Path, root: Path, out: Path, jobs: Submitter) -> Results:
    """Runs the steps on real data, and scores the training data, as the ground truth of valid is withheld.

    The figures thus only show that training works. Damaged items are left out, also of the submission, and are scored
    as empty masks.
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
    flags = f"--short-side {SIDE} --allow-failures"
    jobs.run("predict", flags, data=valid, checkpoint=checkpoint, storage=root, out=out / "valid")
    submission = out / "ref-youtube-vos.zip"
    words = "--format ref-youtube-vos --allow-missing"
    jobs.run("submit", words, allow_incomplete=True, predictions=out / "valid", meta=raw, out=submission)
    score = _predict_and_score(jobs, train, checkpoint, train, root, out / "train", allow_incomplete=True)
    whole, box = _baselines(train, train)
    return Results(score, whole, box, None, submission, out / "train" / "scores" / "pictures")


def _predict_and_score(
    jobs: Submitter, data: Path, checkpoint: Path, truth: Path, root: Path, out: Path, allow_incomplete: bool = False
) -> Figures:
    """Predicts prepared data with a checkpoint, and returns the scores."""
    predict_flags, score_flags = (" --allow-failures", " --missing-as-empty") if allow_incomplete else ("", "")
    jobs.run("predict", f"--short-side {SIDE}{predict_flags}", data=data, checkpoint=checkpoint, storage=root, out=out)
    scores = out / "scores"
    jobs.run(
        "evaluate", f"--pictures 3{score_flags}", predictions=out, truth=truth, out=scores, frames=data, storage=root
    )
    return json.loads((scores / SCORES).read_text(encoding="utf-8"))["figures"]


def _best_cases(pictures: Path) -> Image.Image:
    """Returns the pictures of the three best expressions in one column."""
    cases = [Image.open(file) for file in sorted(pictures.glob("best-*.png"))[:3]]
    sheet = Image.new("RGB", (max(one.width for one in cases), sum(one.height for one in cases)))
    top = 0
    for one in cases:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet


def _baselines(truth: Path, train: Path) -> tuple[Figures, Figures]:
    """Returns the scores of two baselines: the whole frame, and the mean box of the training data."""
    truths = list(read_truths(str(truth)))
    box = mean_box(read_truths(str(train)))
    whole = [row for one in truths for row in score_video(one, whole_frame(one))]
    boxes = [row for one in truths for row in score_video(one, box_everywhere(one, box, "mean box"))]
    return figures(whole), figures(boxes)
