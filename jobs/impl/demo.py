"""Runs every step on a small dataset: the body of jobs/demo.py."""

import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

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
from pipelines.sources.synthetic import SyntheticConfig, upload_synthetic, write_synthetic
from pipelines.sources.synthetic_scene import EASY, PLAIN
from pipelines.tracking.mlflow_run import DATABASE, tracking_uri

Figures = Mapping[str, float]
"""Scores by name: J, F, J&F, …"""

SIDE = 160
"""Height and width of the synthetic frames, in pixels: the smallest that the model accepts."""


@dataclass(frozen=True)
class Results:
    """Figures of the models and of the baselines they should beat, and the paths of the results.

    `shuffled` is None without --shuffled, `multi` without --multi-steps, `multi_shuffled` without both.
    """

    model: Figures
    whole_frame: Figures
    mean_box: Figures
    shuffled: Figures | None
    multi: Figures | None
    multi_shuffled: Figures | None
    submission: str
    pictures: Folder


def demo(config: DemoConfig) -> Exit:
    """Runs every step that is not finished, and prints the scores and the paths of the results.

    Raises:
        JobError: a step failed; its log is printed.
    """
    results = _run_steps(config)
    wanted = {
        "J&F": ("SgMg tiny", results.model),
        "shuffled": ("the same, sentences shuffled", results.shuffled),
        "multi": ("multi-object, asked together", results.multi),
        "multi_shuffled": ("the same, sentences shuffled", results.multi_shuffled),
        "mean_box": ("a box at the mean position", results.mean_box),
        "whole_frame": ("the whole frame", results.whole_frame),
    }
    rows = {key: (name, scores) for key, (name, scores) in wanted.items() if scores is not None}
    print()
    for name, scores in rows.values():
        print(f"{name:30}", "   ".join(f"{measure} {100 * scores[measure]:5.1f}" for measure in ("J", "F", "J&F")))
    named = {key: scores["J&F"] for key, (_, scores) in rows.items()}
    out = out_folder(config)
    out.write("results.json", (json.dumps(named) + "\n").encode())
    print("\nRESULT", *(f"{name}={value:.4f}" for name, value in named.items()))
    with out.output("demo.png") as stream:
        _best_cases(results.pictures).save(cast(IO[bytes], stream), "PNG")
    print(f"picture      {out.uri_of('demo.png')}")
    print(f"submission   {results.submission}\npictures     {results.pictures.uri}")
    print(f"runs         {_where_to_look(config)}")
    if named["J&F"] <= max(named["whole_frame"], named["mean_box"]):
        raise JobError("The model is no better than a baseline. Raise --pretrain-steps and --finetune-steps.")
    return Exit.CLEAN


def _where_to_look(config: DemoConfig) -> str:
    """Returns how to see the runs in MLflow."""
    storage = durable_folder(config.storage, "--storage")
    uri = tracking_uri(storage.uri)
    return f"make ui STORAGE={storage.path()}" if uri.endswith(f"{storage.uri}/{DATABASE}") else f"MLflow at {uri}"


def out_folder(config: DemoConfig) -> Folder:
    """Returns the folder of everything except runs and MLflow's database."""
    return durable_folder(config.storage, "--storage").folder("demo")


def _run_steps(config: DemoConfig) -> Results:
    """Runs the steps in order; each job skips what it has finished before."""
    out, root = out_folder(config), durable_folder(config.storage, "--storage")
    tracking_uri(root.uri)  # where that cannot be, it is said before minutes of work
    write_config(out, config)
    with Submitter() as jobs:
        if config.data:
            return _on_real_data(config, durable_folder(config.data, "--data").uri, root, out, jobs)
        return _on_synthetic_data(config, root, out, jobs)


def _on_synthetic_data(config: DemoConfig, root: Folder, out: Folder, jobs: Submitter) -> Results:
    drawn = SyntheticConfig(
        seed=config.seed, train_images=config.images, train_videos=config.videos, valid_videos=config.valid_videos,
        width=SIDE, height=SIDE, variety=EASY, image_variety=PLAIN,
    )  # fmt: skip
    with step("draw the dataset"):
        refcoco, ytvos, truth = _draw(out.folder("raw"), drawn)
    images, train, valid = (out.uri_of(f"prepared/{name}") for name in ("images", "train", "valid"))
    jobs.run("prepare", "--dataset refcoco --split train --show 8", raw=refcoco, out=images)
    jobs.run("prepare", "--dataset ref-youtube-vos --split train --show 8", raw=ytvos, out=train)
    jobs.run("prepare", "--dataset ref-youtube-vos --split valid", raw=ytvos, out=valid)
    # Half a core each, as Ray counts, so that two workers and the data pipeline fit on two cores.
    common = f"--recipe tiny --workers {config.workers} --cpus-per-worker 0.5 --threads 1 --name demo"
    learn = f"{common} --seed {config.seed} --epochs 100"
    pretrain = f"{learn} --max-steps {config.pretrain_steps}"
    jobs.run("pretrain_refcoco", pretrain, storage=root.uri, data=images, tokenizer_data=train)
    start = root.uri_of("pretrain/demo")
    jobs.run("finetune_ytvos", f"{learn} --max-steps {config.finetune_steps}", storage=root.uri, data=train, init=start)
    checkpoint = root.uri_of("finetune/demo")
    other = out.folder("prepared/shuffled")
    if config.shuffled:
        write_shuffled(Folder(valid), other, truth)

    def scores_of(checkpoint: str, name: str) -> tuple[Figures, Figures | None]:
        """Returns the scores of a checkpoint, and if wanted those with the sentences shuffled."""
        score = _predict_and_score(jobs, valid, checkpoint, truth, root, out.folder(f"{name}valid"))
        if not config.shuffled:
            return score, None
        return score, _predict_and_score(jobs, other.uri, checkpoint, truth, root, out.folder(f"{name}shuffled"))

    score, shuffled = scores_of(checkpoint, "")
    submission = out.uri_of("ref-youtube-vos.zip")
    predictions = out.uri_of("valid")
    jobs.run("submit", "--format ref-youtube-vos", predictions=predictions, meta=ytvos, out=submission)
    multi = multi_shuffled = None
    if config.multi_steps:
        words = f"{learn.replace('--name demo', '--name demo-multi')} --multi-object --sentences-per-clip 8"
        words = f"{words} --max-steps {config.multi_steps}"
        jobs.run("finetune_ytvos", words, storage=root.uri, data=train, init=start)
        multi, multi_shuffled = scores_of(root.uri_of("finetune/demo-multi"), "multi/")
    whole, box = _baselines(truth, train)
    pictures = out.folder("valid/scores/pictures")
    return Results(score, whole, box, shuffled, multi, multi_shuffled, submission, pictures)


def _draw(raw: Folder, drawn: SyntheticConfig) -> tuple[str, str, str]:
    """Draws the dataset. Returns its folders of RefCOCO, of Ref-YouTube-VOS, and of the truth of valid."""
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = Path(raw.path()) if raw.is_local else Path(elsewhere).resolve() / "raw"
        paths = write_synthetic(folder, drawn)
        if not raw.is_local:
            upload_synthetic(folder, raw)
        refcoco, ytvos, truth = (
            raw.uri_of(path.relative_to(folder).as_posix()) for path in (paths.refcoco, paths.ytvos, paths.valid_truth)
        )
        return refcoco, ytvos, truth


def _on_real_data(config: DemoConfig, raw: str, root: Folder, out: Folder, jobs: Submitter) -> Results:
    """Runs the steps on real data, and scores the training data, as the ground truth of valid is withheld.

    The figures thus only show that training works. Damaged items are left out, also of the submission, and are scored
    as empty masks.
    """
    train, valid = (out.uri_of(f"prepared/{name}") for name in ("train", "valid"))
    for split, folder in (("train", train), ("valid", valid)):
        jobs.run("prepare", f"--dataset ref-youtube-vos --split {split} --allow-failures", raw=raw, out=folder)
    common = f"--recipe tiny --workers {config.workers} --cpus-per-worker 0.5 --threads 1 --name demo"
    learn = f"{common} --seed {config.seed} --epochs 100"
    jobs.run("pretrain_refcoco", f"{learn} --max-steps {config.pretrain_steps}", storage=root.uri, data=train)
    start = root.uri_of("pretrain/demo")
    jobs.run("finetune_ytvos", f"{learn} --max-steps {config.finetune_steps}", storage=root.uri, data=train, init=start)
    checkpoint = root.uri_of("finetune/demo")
    flags = f"--short-side {SIDE} --allow-failures"
    jobs.run("predict", flags, data=valid, checkpoint=checkpoint, storage=root.uri, out=out.uri_of("valid"))
    submission = out.uri_of("ref-youtube-vos.zip")
    words = "--format ref-youtube-vos --allow-missing"
    jobs.run("submit", words, allow_incomplete=True, predictions=out.uri_of("valid"), meta=raw, out=submission)
    score = _predict_and_score(jobs, train, checkpoint, train, root, out.folder("train"), allow_incomplete=True)
    whole, box = _baselines(train, train)
    return Results(score, whole, box, None, None, None, submission, out.folder("train/scores/pictures"))


def _predict_and_score(
    jobs: Submitter, data: str, checkpoint: str, truth: str, root: Folder, out: Folder, allow_incomplete: bool = False
) -> Figures:
    """Predicts prepared data with a checkpoint, and returns the scores."""
    predict_flags, score_flags = (" --allow-failures", " --missing-as-empty") if allow_incomplete else ("", "")
    words = f"--short-side {SIDE}{predict_flags}"
    jobs.run("predict", words, data=data, checkpoint=checkpoint, storage=root.uri, out=out.uri)
    words, scores = f"--pictures 3{score_flags}", out.folder("scores")
    jobs.run("evaluate", words, predictions=out.uri, truth=truth, out=scores.uri, frames=data, storage=root.uri)
    return json.loads(scores.read(SCORES))["figures"]


def _best_cases(pictures: Folder) -> Image.Image:
    """Returns the pictures of the three best expressions in one column."""
    best = [name for name in pictures.names(suffix=".png") if name.startswith("best-")]
    cases = [Image.open(io.BytesIO(pictures.read(name))) for name in best[:3]]
    sheet = Image.new("RGB", (max(one.width for one in cases), sum(one.height for one in cases)))
    top = 0
    for one in cases:
        sheet.paste(one, (0, top))
        top += one.height
    return sheet


def _baselines(truth: str, train: str) -> tuple[Figures, Figures]:
    """Returns the scores of two baselines: the whole frame, and the mean box of the training data."""
    truths = list(read_truths(truth))
    box = mean_box(read_truths(train))
    whole = [row for one in truths for row in score_video(one, whole_frame(one))]
    boxes = [row for one in truths for row in score_video(one, box_everywhere(one, box, "mean box"))]
    return figures(whole), figures(boxes)
