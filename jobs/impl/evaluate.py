"""Scores predictions: the body of jobs/evaluate.py."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError

from jobs.evaluate import EvaluateConfig
from jobs.impl.prediction_source import is_coco, prediction_source
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder, without_options
from pipelines.ledger import PREDICTIONS
from pipelines.manifest import read_manifest
from pipelines.safety.secrets import redacted, redacted_values
from pipelines.scoring.cases import draw_cases, worst_and_best
from pipelines.scoring.coco_files import coco_rows, read_json
from pipelines.scoring.comparison import COMPARISON
from pipelines.scoring.distributed import RunScores, check_same_data, score_run
from pipelines.scoring.paper import summary_csv, summary_text, with_paper_figures
from pipelines.scoring.prediction_source import PredictionSource
from pipelines.scoring.rows import csv_bytes, rows_table, write_parquet
from pipelines.scoring.score import metric_name
from pipelines.scoring.summary import SCORES, attribute_lines, data_name, summary_of, title_of
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
    check_out(out)
    if config.submission and is_coco(config.submission, config.truth):
        content = _coco_files(config, config.submission)
        make_out(config, out)
        return _written(config, out, "coco", _score_coco(config, config.submission, *content))
    # All inputs are checked before Ray is started and anything is scored.
    parts = parts_of(config.truth, "--truth")
    path, flag = (config.predictions, "--predictions") if config.predictions else (config.submission, "--submission")
    source = prediction_source(path or "", parts, flag)
    check_same_data(parts, source)
    frames = frames_of(config) or parts
    make_out(config, out)
    start_ray()
    try:
        scores = score_run(parts, source, missing_as_empty=config.missing_as_empty)
        return _written(config, out, parts[0].dataset, scores, (parts, frames, source))
    except RayError as error:
        cause = getattr(error, "cause", None) or error  # without the worker's traceback
        raise JobError(f"Scoring stopped: {cause}\nCorrect this, and run the same command again.") from error


def make_out(config: EvaluateConfig, out: Folder) -> None:
    """Creates the folder of the scores, and checks the MLflow run that they go to.

    Raises:
        JobError: one of them cannot be used.
    """
    try:
        out.make()
    except OSError as error:
        raise JobError(f"--out {out.path()} cannot be created ({error}). Choose another folder.") from error
    _check_mlflow_run(config)


def _written(
    config: EvaluateConfig, out: Folder, dataset: str, scores: RunScores, drawing: Drawing | None = None
) -> dict[str, Any]:
    """Writes all files, scores.json last. Returns its content, the printed table (`text`) and the folder (`out`)."""
    summary, table = summary_of(dataset, scores), rows_table(scores.rows)
    inputs = {"predictions": config.predictions or config.submission, "truth": list(config.truth)}
    summary |= {**redacted_values(inputs), "pictures": []}
    lines = with_paper_figures(dataset, summary["figures"], official=summary["official"])
    try:
        remove_earlier(out, SCORES)
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
    table_text = summary_text(title_of(summary), dataset, lines, official=summary["official"])
    return summary | {"text": "\n".join([table_text, *attribute_lines(summary)]), "out": out.path()}


def remove_earlier(out: Folder, result: str, others: Sequence[str] = ()) -> None:
    """Removes what an earlier run wrote, and unfinished files of a killed one.

    Args:
        result: the file that is written last and lists the pictures; it is removed first.
        others: further files of that run, which may also be of a killed one.

    Raises:
        JobError: the result is damaged.
    """
    found = out.read_if_there(result)
    if found is not None:
        try:
            pictures = [str(name) for name in parse_json(found)["pictures"]]
        except (ValueError, LookupError, TypeError) as error:
            raise JobError(f"{out.path(result)} is damaged ({error!r}). Remove it, and run again.") from error
        out.remove(result)
        others = [*others, *(f"pictures/{name}" for name in pictures)]
    for name in others:
        out.remove(name, missing_ok=True)
    for name in ("", "pictures"):
        out.remove_unfinished(name)


def parts_of(paths: Sequence[str], flag: str) -> list[TruthPart]:
    """Lists the truth of all folders in parts.

    Raises:
        JobError: one is a single file.
        FileNotFoundError: one holds no truth.
    """
    if single := next((path for path in paths if without_options(path).endswith(".json")), None):
        raise JobError(
            f"{flag} {single} is a single file, which is the ground truth of --submission FILE.json (COCO results). "
            f"Give the prepared data, or the folder of masks."
        )
    # Absolute: workers have working directories of their own.
    return [part for path in paths for part in truth_parts(durable_folder(path, flag).uri)]


def frames_of(config: EvaluateConfig) -> list[TruthPart]:
    """Returns the prepared data with the frames to draw on.

    Raises:
        FileNotFoundError: a folder of --frames is not prepared data.
    """
    for path in config.frames:
        read_manifest(durable_folder(path, "--frames"))
    return parts_of(config.frames, "--frames") if config.pictures else []


def _coco_files(config: EvaluateConfig, submission: str) -> tuple[Any, Any]:
    """Reads ground truth and results in COCO's format.

    Raises:
        JobError: --truth is not the one annotation file, or pictures are to be drawn.
    """
    if len(config.truth) != 1 or not without_options(config.truth[0]).endswith(".json"):
        raise JobError(
            f"{submission} is taken for COCO results: give --truth the one annotation file (.json) that they belong "
            f"to. Only Ref-SAV has other results in a .json; their --truth is its prepared data."
        )
    if config.pictures:
        raise JobError("COCO files contain no frames: leave out --pictures.")
    return read_json(config.truth[0]), read_json(submission)


def _score_coco(config: EvaluateConfig, submission: str, truth: Any, results: Any) -> RunScores:
    """Scores results in COCO's format.

    Raises:
        JobError: they do not belong to the ground truth, or images have none.
    """
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


_RESULTS = {SCORES: "the scores of a run", COMPARISON: "a comparison of runs"}


def check_out(out: Folder, result: str = SCORES) -> None:
    """Refuses a folder that holds other things, whose config.json would be replaced.

    jobs/predict.py needs that of predictions to continue.

    Args:
        result: the file that is to be written.

    Raises:
        JobError: the folder holds predictions, or a result of another kind.
    """
    for file, what in _RESULTS.items():
        if file != result and out.has(file):
            raise JobError(f"--out {out.path()} holds {what} ({file}), not {_RESULTS[result]}. Choose another --out.")
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
    data = data_name(summary["dataset"], synthetic=summary["synthetic"])
    prefix = f"{data}_{'_'.join(summary['splits'])}"
    metrics = [Metric(f"{prefix}/{metric_name(name)}", value, 0, 0) for name, value in summary["figures"].items()]
    handle = None
    try:
        if config.mlflow_run:
            client, run_id = mlflow_client(storage), config.mlflow_run
        else:
            # A run for each set of predictions, so that scores of one model do not replace those of another.
            of = redacted(durable_folder(config.predictions or config.submission or "", "--predictions").uri)
            name = f"{prefix}-{hashlib.sha256(of.encode()).hexdigest()[:8]}"
            handle = open_run("evaluate", name, storage, config, {"predictions": of})
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
