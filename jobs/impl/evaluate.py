"""Scores predictions: the body of jobs/evaluate.py."""

import json
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError

from jobs.evaluate import EvaluateConfig
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder, without_options
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import read_manifest
from pipelines.safety.secrets import redacted_values
from pipelines.scoring.cases import draw_cases, worst_and_best
from pipelines.scoring.coco_files import coco_rows, read_json
from pipelines.scoring.distributed import RunScores, check_same_data, score_run
from pipelines.scoring.paper import summary_csv, summary_text, with_paper_figures
from pipelines.scoring.prediction_source import PredictionSource, open_predictions, open_submission
from pipelines.scoring.rows import csv_bytes, rows_table, write_parquet
from pipelines.scoring.score import metric_name
from pipelines.scoring.summary import SCORES, summary_of, title_of
from pipelines.scoring.truth_parts import TruthPart, truth_parts
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.client import Metric, MlflowException
from pipelines.tracking.mlflow_run import mlflow_client, open_run, tracking_uri
from pipelines.tracking.reasons import reason_of
from sgmg.json_text import parse_json

Drawing = tuple[Sequence[TruthPart], Sequence[TruthPart], PredictionSource]
"""Ground truth, frames and predictions, for the pictures."""


def evaluate_and_print(config: EvaluateConfig) -> Exit:
    """Scores, writes and prints; records the figures in MLflow if --storage is given.

    Raises:
        JobError: a flag names something that does not exist or cannot be used.
        ValueError: predictions and ground truth do not match, something is missing, or a file is damaged.
    """
    summary = evaluate(config)
    print(summary["text"])
    print(f"scores: {summary['out']}")
    if config.storage:
        print(f"MLflow run: {_track(config, config.storage, summary)}")
    return Exit.CLEAN


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Scores and writes. Returns the content of scores.json, with the printed table as `text` and the folder as `out`.

    Raises:
        JobError: a flag names something that does not exist or cannot be used.
        ValueError: predictions and ground truth do not match, something is missing, or a file is damaged.
    """
    out = durable_folder(config.out, "--out")
    _check_out(out)
    try:
        out.make()
    except OSError as error:
        raise JobError(f"--out {out.path()} cannot be created ({error}). Choose another folder.") from error
    _check_mlflow_run(config)
    if config.submission and without_options(config.submission).endswith(".json"):
        return _written(config, out, "coco", _score_json(config, config.submission))
    # All inputs are checked before Ray is started and anything is scored.
    parts = _parts(config.truth, "--truth")
    source = _prediction_source(config, parts[0].dataset if parts else "")
    check_same_data(parts, source)
    frames = _frames(config) or parts
    start_ray()
    try:
        scores = score_run(parts, source, missing_as_empty=config.missing_as_empty)
        return _written(config, out, parts[0].dataset, scores, (parts, frames, source))
    except RayError as error:
        cause = getattr(error, "cause", None) or error  # without the worker's traceback
        raise JobError(f"Scoring stopped: {cause}\nCorrect this, and run the same command again.") from error


def _written(
    config: EvaluateConfig, out: Folder, dataset: str, scores: RunScores, drawing: Drawing | None = None
) -> dict[str, Any]:
    """Writes all files, scores.json last. Returns its content, the printed table (`text`) and the folder (`out`)."""
    summary, table = summary_of(dataset, scores), rows_table(scores.rows)
    inputs = {"predictions": config.predictions or config.submission, "truth": list(config.truth)}
    summary |= {**redacted_values(inputs), "pictures": []}
    lines = with_paper_figures(dataset, summary["figures"])
    try:
        _remove_earlier_scores(out)
        write_config(out, config)
        write_parquet(out, "expressions.parquet", table)
        out.write("expressions.csv", csv_bytes(table))
        out.write("summary.csv", summary_csv(lines))
        if config.pictures and drawing:
            cases, pictures = worst_and_best(scores.rows, config.pictures), out.folder("pictures").make()
            summary["pictures"] = draw_cases(cases, *drawing, pictures)
        out.write(SCORES, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    except RayError:  # from a drawing worker; Ray makes it an OSError as well if the worker raised one
        raise
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Free disk space or choose another --out.") from error
    return summary | {"text": summary_text(title_of(summary), dataset, lines), "out": out.path()}


def _remove_earlier_scores(out: Folder) -> None:
    """Removes the scores of an earlier run, scores.json first, and unfinished files of a killed one."""
    scores = out.read_if_there(SCORES)
    if scores is not None:
        try:
            pictures = [str(name) for name in parse_json(scores)["pictures"]]
        except (ValueError, LookupError, TypeError) as error:
            raise JobError(f"{out.path(SCORES)} is damaged ({error!r}). Remove it, and run again.") from error
        out.remove(SCORES)
        for name in pictures:
            out.remove(f"pictures/{name}", missing_ok=True)
    for name in ("", "pictures"):
        out.remove_unfinished(name)


def _parts(paths: Sequence[str], flag: str) -> list[TruthPart]:
    if single := next((path for path in paths if without_options(path).endswith(".json")), None):
        raise JobError(
            f"{flag} {single} is a single file, which is the ground truth of --submission FILE.json (COCO results). "
            f"Give the prepared data, or the folder of masks."
        )
    # Absolute: workers have working directories of their own.
    return [part for path in paths for part in truth_parts(durable_folder(path, flag).uri)]


def _frames(config: EvaluateConfig) -> list[TruthPart]:
    """Returns the prepared data with the frames to draw on.

    Raises:
        FileNotFoundError: a folder of --frames is not prepared data.
    """
    for path in config.frames:
        read_manifest(durable_folder(path, "--frames"))
    return _parts(config.frames, "--frames") if config.pictures else []


def _prediction_source(config: EvaluateConfig, dataset: str) -> PredictionSource:
    if config.predictions:
        return open_predictions(durable_folder(config.predictions, "--predictions").uri)
    zip_datasets = ("ref-youtube-vos", "mevis", "ref-davis17")
    if dataset not in zip_datasets:
        raise JobError(
            f"A zip of PNGs is a submission of {', '.join(zip_datasets)}, but --truth is {dataset}. Give its "
            f"COCO results (.json) and the annotation file as --truth, or --predictions."
        )
    submission = durable_folder(config.submission or "", "--submission").uri
    return open_submission(submission, davis=dataset == "ref-davis17")


def _score_json(config: EvaluateConfig, submission: str) -> RunScores:
    if len(config.truth) != 1 or not without_options(config.truth[0]).endswith(".json"):
        raise JobError(
            f"{submission} holds COCO results: give --truth the one annotation file (.json) that they belong to."
        )
    if config.pictures:
        raise JobError("COCO files contain no frames: leave out --pictures.")
    truth, results = read_json(config.truth[0]), read_json(submission)
    try:
        rows, missing = coco_rows(truth, results)
    except ValueError as error:
        raise JobError(f"{submission} against {config.truth[0]}: {error}") from error
    if missing and not config.missing_as_empty:
        raise JobError(
            f"{len(missing)} images of the ground truth have no result: {'; '.join(missing[:10])}. Predict them, or "
            f"score them as empty masks (--missing-as-empty)."
        )
    return RunScores(tuple(rows), 0, tuple(missing))


def _check_out(out: Folder) -> None:
    """Refuses a folder of predictions: jobs/predict.py needs the config.json in it to continue.

    Raises:
        JobError: the folder holds predictions.
    """
    try:
        config = parse_json(out.read_if_there(CONFIG) or b"{}")
    except ValueError:  # not JSON: no job can read it, so it may be replaced
        config = {}
    if out.has(PREDICTIONS) or (isinstance(config, dict) and "made_by" in config):
        raise JobError(
            f"--out {out.path()} holds predictions, whose config.json the scores would replace. Choose a "
            f"separate folder for the scores, for instance {out.path('scores')}."
        )


def _check_mlflow_run(config: EvaluateConfig) -> None:
    """Checks --mlflow-run before anything is scored.

    Raises:
        JobError: MLflow has no such run, or cannot be reached.
    """
    if config.mlflow_run and config.storage:
        try:
            mlflow_client(config.storage).get_run(config.mlflow_run)
        except (JobError, MlflowException, OSError) as error:
            uri = tracking_uri(config.storage)
            raise JobError(f"--mlflow-run {config.mlflow_run} was not found at {uri}: {reason_of(error)}") from error


def _track(config: EvaluateConfig, storage: str, summary: dict[str, Any]) -> str:
    """Records the figures in MLflow, and returns the id of the run.

    Raises:
        JobError: MLflow did not accept them; the files are written nevertheless.
    """
    prefix = f"{summary['dataset']}_{'_'.join(summary['splits'])}"
    metrics = [Metric(f"{prefix}/{metric_name(name)}", value, 0, 0) for name, value in summary["figures"].items()]
    handle = None
    try:
        if config.mlflow_run:
            client, run_id = mlflow_client(storage), config.mlflow_run
        else:
            handle = open_run("evaluate", prefix, storage, config)
            client, run_id = handle.client(), handle.run_id
        client.log_batch(run_id, metrics=metrics)
        client.log_text(run_id, summary["text"] + "\n", f"scores/{prefix}.txt")
        if handle:
            handle.finish()
    except (MlflowException, OSError) as error:
        raise JobError(
            f"The scores are in {summary['out']}, but MLflow in --storage {storage} did not accept them: "
            f"{reason_of(error)}. Correct this and run the same command again, or leave out --storage."
        ) from error
    return run_id
