"""Scores predictions against the truth, video by video on Ray, and prints them beside the paper's figures.

Which scores: J and F of every expression (Ref-YouTube-VOS, MeViS, own data), DAVIS's two protocols per annotator
(Ref-DAVIS17), COCO mAP, P@K and IoU of masks (A2D, JHMDB) and of boxes too (RefCOCO). Into --out go summary.csv, every
scored expression in expressions.csv and expressions.parquet, and scores.json, which is there when all else is. Killed,
it is simply run again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from ray.exceptions import RayError

from jobs.common.cli import Exit, run
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.prediction_reader import PREDICTIONS
from pipelines.scoring.cases import draw_cases, worst_and_best
from pipelines.scoring.coco_files import coco_rows, read_json
from pipelines.scoring.distributed import RunScores, check_same_data, score_run
from pipelines.scoring.paper import summary_csv, summary_text, with_paper_figures
from pipelines.scoring.prediction_source import PredictionSource, open_predictions, open_submission
from pipelines.scoring.rows import csv_bytes, rows_table, write_parquet
from pipelines.scoring.score import metric_name
from pipelines.scoring.summary import summary_of, title_of
from pipelines.scoring.truth_parts import TruthPart, truth_parts
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.mlflow_run import open_run, tracking_uri

SCORES = "scores.json"


Drawing = tuple[Sequence[TruthPart], Sequence[TruthPart], PredictionSource]
"""Truth, frames and predictions, to draw cases of."""


@dataclass(frozen=True)
class EvaluateConfig:
    """From predictions and truth to scores."""

    truth: tuple[str, ...]
    """What is true: folders of prepared data; where those hold none or no void pixels, a folder with Annotations/ and
    meta_expressions*.json with obj_id (Ref-YouTube-VOS), or one of DAVIS; a COCO annotation file with a .json."""
    out: str
    """Folder for the scores: local, s3://… or gs://…."""
    predictions: str | None = None
    """Folder that jobs/predict.py wrote."""
    submission: str | None = None
    """Instead of it, a file for a server, anyone's: .zip (or folder) of PNGs, or .json of COCO results."""
    missing_as_empty: bool = False
    """Score what is not predicted as empty masks; else it is an error that lists it."""
    pictures: int = 0
    """How many of the worst and of the best expressions to draw, into pictures/."""
    frames: tuple[str, ...] = ()
    """Prepared data with the frames to draw on, where --truth holds none."""
    storage: str | None = None
    """Folder of MLflow's database, to keep the scores there too (MLFLOW_TRACKING_URI, where set, goes before)."""
    mlflow_run: str | None = None
    """Id of the MLflow run that the scores belong to; by default a run of its own."""

    def __post_init__(self) -> None:
        """Checks what does not go together.

        Raises:
            JobError: not one of predictions and submission, no truth, or a run without storage.
        """
        if (self.predictions is None) == (self.submission is None):
            raise JobError("Give either --predictions or --submission.")
        if not self.truth:
            raise JobError("Give --truth at least one folder.")
        if self.pictures < 0:
            raise JobError(f"--pictures {self.pictures}: give a number from 0.")
        if self.mlflow_run and not self.storage:
            raise JobError("--mlflow-run needs --storage, the folder that the run was tracked in.")


def main(config: EvaluateConfig) -> Exit:
    """Scores, writes, prints; keeps the figures in MLflow where a storage is given.

    Raises:
        JobError: the config asks for what there is not.
        ValueError: predictions and truth do not fit together, something is missing, or damaged.
    """
    summary = evaluate(config)
    print(summary["text"])
    print(f"scores: {summary['out']}")
    if config.storage:
        print(f"MLflow run: {_track(config, config.storage, summary)}")
    return Exit.CLEAN


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Scores and writes; dataset, splits, figures, counts, and the table as `text`.

    Raises:
        JobError: the config asks for what there is not.
        ValueError: predictions and truth do not fit together, something is missing, or damaged.
    """
    out = durable_folder(config.out, "--out")
    _check_out(out)
    try:
        out.make()
    except OSError as error:
        raise JobError(f"--out {out.path()} cannot be made ({error}). Choose another folder.") from error
    _check_mlflow_run(config)
    if config.submission and config.submission.endswith(".json"):
        return _written(config, out, "coco", _score_json(config, config.submission))
    # Whatever is wrong with what was given is said before a Ray is started and anything is scored.
    parts = _parts(config.truth, "--truth")
    found = _found(config, parts[0].dataset if parts else "")
    check_same_data(parts, found)
    frames = _frames(config) or parts
    start_ray()
    try:
        scores = score_run(parts, found, missing_as_empty=config.missing_as_empty)
        return _written(config, out, parts[0].dataset, scores, (parts, frames, found))
    except RayError as error:
        cause = getattr(error, "cause", None) or error  # without the worker's traceback
        raise JobError(f"Scoring ended early: {cause}\nMend that, and run the same command again.") from error


def _written(
    config: EvaluateConfig, out: Folder, dataset: str, scores: RunScores, drawing: Drawing | None = None
) -> dict[str, Any]:
    """Writes all files, scores.json last; what it says, the table, and where it lies."""
    summary, table = summary_of(dataset, scores), rows_table(scores.rows)
    summary |= {"predictions": config.predictions or config.submission, "truth": list(config.truth), "pictures": []}
    lines = with_paper_figures(dataset, summary["figures"])
    try:
        _begin(out)
        write_config(out, config)
        write_parquet(out, "expressions.parquet", table)
        out.write("expressions.csv", csv_bytes(table))
        out.write("summary.csv", summary_csv(lines))
        if config.pictures and drawing:
            cases, pictures = worst_and_best(scores.rows, config.pictures), out.folder("pictures").make()
            summary["pictures"] = draw_cases(cases, *drawing, pictures)
        out.write(SCORES, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    except RayError:  # of a worker that draws, and then an OSError, too, where it met one
        raise
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Make room, or choose another --out.") from error
    return summary | {"text": summary_text(title_of(summary), dataset, lines), "out": out.path()}


def _begin(out: Folder) -> None:
    """Until the new scores are whole there are none: neither those of an earlier run nor what a killed one left."""
    if out.has(SCORES):
        drawn = json.loads(out.read(SCORES))["pictures"]
        out.remove(SCORES)
        for name in drawn:
            out.remove(f"pictures/{name}")
    for name in ("", "pictures"):
        out.remove_unfinished(name)


def _parts(paths: Sequence[str], flag: str) -> list[TruthPart]:
    if single := next((path for path in paths if path.endswith(".json")), None):
        raise JobError(
            f"{flag} {single} is a single file: it is the truth of --submission FILE.json, COCO's results. Give the "
            f"prepared data, or the folder of masks."
        )
    # Absolute: workers have working directories of their own.
    return [part for path in paths for part in truth_parts(durable_folder(path, flag).uri)]


def _frames(config: EvaluateConfig) -> list[TruthPart]:
    """Where there are frames to draw on.

    Raises:
        FileNotFoundError: it is no prepared data.
    """
    for path in config.frames:
        read_manifest(durable_folder(path, "--frames"))
    return _parts(config.frames, "--frames") if config.pictures else []


def _found(config: EvaluateConfig, dataset: str) -> PredictionSource:
    if config.predictions:
        return open_predictions(durable_folder(config.predictions, "--predictions").uri)
    zipped = ("ref-youtube-vos", "mevis", "ref-davis17")
    if dataset not in zipped:
        raise JobError(
            f"A zip of PNGs is a result of {', '.join(zipped)}, but the truth is of {dataset}. Give its COCO results "
            f"(.json) and the annotation file as --truth, or --predictions."
        )
    submission = durable_folder(config.submission or "", "--submission").uri
    return open_submission(submission, davis=dataset == "ref-davis17")


def _score_json(config: EvaluateConfig, submission: str) -> RunScores:
    if len(config.truth) != 1 or not config.truth[0].endswith(".json"):
        raise JobError(f"{submission} holds COCO results: give --truth the one annotation file (.json) they belong to.")
    if config.pictures:
        raise JobError("COCO files hold no frames: leave --pictures out.")
    truth, results = read_json(config.truth[0]), read_json(submission)
    try:
        rows, missing = coco_rows(truth, results)
    except ValueError as error:
        raise JobError(f"{submission} by {config.truth[0]}: {error}") from error
    if missing and not config.missing_as_empty:
        raise JobError(
            f"{len(missing)} images of the truth have no result: {'; '.join(missing[:10])}. Predict them, or score "
            f"them as empty masks (--missing-as-empty)."
        )
    return RunScores(tuple(rows), 0, tuple(missing))


def _check_out(out: Folder) -> None:
    """Predictions keep their config.json: by it jobs/predict.py knows them again.

    Raises:
        JobError: the folder is one of predictions.
    """
    try:
        config = json.loads(out.read(CONFIG)) if out.has(CONFIG) else {}
    except ValueError:  # whoever wrote it, no job can read it
        config = {}
    if out.has(PREDICTIONS) or (isinstance(config, dict) and "made_by" in config):
        raise JobError(
            f"--out {out.path()} holds predictions, whose config.json the scores would replace. Give the scores a "
            f"folder of their own, for instance {out.path('scores')}."
        )


def _check_mlflow_run(config: EvaluateConfig) -> None:
    """A wrong id is said before anything is scored.

    Raises:
        JobError: MLflow has no such run, or cannot be asked.
    """
    if config.mlflow_run and config.storage:
        uri = tracking_uri(config.storage)
        try:
            MlflowClient(uri).get_run(config.mlflow_run)
        except (MlflowException, OSError) as error:
            raise JobError(f"--mlflow-run {config.mlflow_run} is not to be had of {uri}: {error}") from error


def _track(config: EvaluateConfig, storage: str, summary: dict[str, Any]) -> str:
    """Keeps the figures in MLflow; the id of the run.

    Raises:
        JobError: MLflow does not take them; they are written all the same.
    """
    prefix = f"{summary['dataset']}_{'_'.join(summary['splits'])}"
    metrics = [Metric(f"{prefix}/{metric_name(name)}", value, 0, 0) for name, value in summary["figures"].items()]
    handle = None
    try:
        if config.mlflow_run:
            client, run_id = MlflowClient(tracking_uri(storage)), config.mlflow_run
        else:
            handle = open_run("evaluate", prefix, storage, config)
            client, run_id = handle.client(), handle.run_id
        client.log_batch(run_id, metrics=metrics)
        client.log_text(run_id, summary["text"] + "\n", f"scores/{prefix}.txt")
        if handle:
            handle.finish()
    except (MlflowException, OSError) as error:
        raise JobError(
            f"The scores are in {summary['out']}, but MLflow in --storage {storage} does not take them: {error}. Mend "
            f"that and run the same command again, or leave --storage out."
        ) from error
    return run_id


if __name__ == "__main__":
    run(EvaluateConfig, main)
