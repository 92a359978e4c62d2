"""Scores predictions against the truth, video by video on Ray, and prints them beside the paper's figures.

Which scores: J and F of every expression (Ref-YouTube-VOS, MeViS, own data), DAVIS's two protocols per annotator
(Ref-DAVIS17), COCO mAP, P@K and IoU of masks (A2D, JHMDB) and of boxes too (RefCOCO). Into --out go scores.json,
summary.csv, and every scored expression in expressions.csv and expressions.parquet.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from jobs.runtime import Exit, JobError, durable_folder, run, start_ray, write_config
from jobs.tracking import open_run, tracking_uri
from pipelines.files import Folder
from pipelines.score import Row, figures, metric_name
from pipelines.scoring.cases import draw_cases, worst_and_best
from pipelines.scoring.coco_files import coco_rows, read_json
from pipelines.scoring.distributed import RunScores, score_run
from pipelines.scoring.found import Found, find_predictions, find_submission
from pipelines.scoring.paper import beside_paper, summary_csv, summary_text
from pipelines.scoring.rows import csv_bytes, rows_table, write_parquet
from pipelines.truth_parts import TruthPart, truth_parts


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
    drawn: list[str] = []
    if config.submission and config.submission.endswith(".json"):
        dataset, scores = "coco", _score_json(config, config.submission)
    else:
        start_ray()
        parts = _parts(config.truth, "--truth")
        dataset = parts[0].dataset if parts else ""
        found = _found(config, dataset)
        scores = score_run(parts, found, missing_as_empty=config.missing_as_empty)
        drawn = _draw(config, scores.rows, parts, found, out)
    summary = _summary(config, dataset, scores)
    summary["pictures"] = drawn
    table = rows_table(scores.rows)
    write_config(out, config)
    write_parquet(out, "expressions.parquet", table)
    out.write("expressions.csv", csv_bytes(table))
    out.write("summary.csv", summary_csv(beside_paper(dataset, summary["figures"])))
    out.write("scores.json", (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    title = _title(dataset, summary)
    return summary | {
        "text": summary_text(title, dataset, beside_paper(dataset, summary["figures"])),
        "out": out.path(),
    }


def _parts(paths: Sequence[str], flag: str) -> list[TruthPart]:
    # Absolute: workers have working directories of their own.
    return [part for path in paths for part in truth_parts(durable_folder(path, flag).uri)]


def _found(config: EvaluateConfig, dataset: str) -> Found:
    if config.predictions:
        return find_predictions(durable_folder(config.predictions, "--predictions").uri)
    zipped = ("ref-youtube-vos", "mevis", "ref-davis17")
    if dataset not in zipped:
        raise JobError(
            f"A zip of PNGs is a result of {', '.join(zipped)}, but the truth is of {dataset}. Give its COCO results "
            f"(.json) and the annotation file as --truth, or --predictions."
        )
    submission = durable_folder(config.submission or "", "--submission").uri
    return find_submission(submission, davis=dataset == "ref-davis17")


def _score_json(config: EvaluateConfig, submission: str) -> RunScores:
    if len(config.truth) != 1 or not config.truth[0].endswith(".json"):
        raise JobError(f"{submission} holds COCO results: give --truth the one annotation file (.json) they belong to.")
    if config.pictures:
        raise JobError("COCO files hold no frames: leave --pictures out.")
    rows, missing = coco_rows(read_json(config.truth[0]), read_json(submission))
    if missing and not config.missing_as_empty:
        raise JobError(
            f"{len(missing)} images of the truth have no result: {'; '.join(missing[:10])}. Predict them, or score "
            f"them as empty masks (--missing-as-empty)."
        )
    return RunScores(tuple(rows), 0, tuple(missing))


def _draw(
    config: EvaluateConfig, rows: Sequence[Row], parts: Sequence[TruthPart], found: Found, out: Folder
) -> list[str]:
    if not config.pictures:
        return []
    frames = _parts(config.frames, "--frames") or parts
    folder = out.folder("pictures").make()
    return draw_cases(worst_and_best(rows, config.pictures), parts, frames, found, folder)


def _summary(config: EvaluateConfig, dataset: str, scores: RunScores) -> dict[str, Any]:
    rows = scores.rows
    return {
        "dataset": dataset,
        "splits": sorted({row.split for row in rows}),
        "predictions": config.predictions or config.submission,
        "truth": list(config.truth),
        "videos": len({row.video for row in rows}),
        "rows": len(rows),
        "figures": figures(rows),
        "paper": {name: theirs for name, _, *theirs in beside_paper(dataset, figures(rows)) if any(theirs)},
        "withheld": scores.withheld,
        "missing": list(scores.missing),
        "unasked": list(scores.unasked),
    }


def _title(dataset: str, summary: dict[str, Any]) -> str:
    title = f"{dataset} {', '.join(filter(None, summary['splits']))}: {summary['rows']} scores of "
    title += f"{summary['videos']} videos"
    for key, what in (
        ("missing", "missing, scored as empty"),
        ("unasked", "videos predicted that the truth does not know"),
    ):
        title += f"; {len(summary[key])} {what}" if summary[key] else ""
    return title + (f"; {summary['withheld']} expressions without truth left out" if summary["withheld"] else "")


def _track(config: EvaluateConfig, storage: str, summary: dict[str, Any]) -> str:
    """Keeps the figures in MLflow; the id of the run."""
    prefix = f"{summary['dataset']}_{'_'.join(summary['splits'])}"
    metrics = [Metric(f"{prefix}/{metric_name(name)}", value, 0, 0) for name, value in summary["figures"].items()]
    handle = None
    if config.mlflow_run:
        client, run_id = MlflowClient(tracking_uri(storage)), config.mlflow_run
    else:
        handle = open_run("evaluate", prefix, storage, config)
        client, run_id = handle.client(), handle.run_id
    client.log_batch(run_id, metrics=metrics)
    client.log_text(run_id, summary["text"] + "\n", f"scores/{prefix}.txt")
    if handle:
        handle.finish()
    return run_id


if __name__ == "__main__":
    run(EvaluateConfig, main)
