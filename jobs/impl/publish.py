"""Writes a model for the Hugging Face hub: the body of jobs/publish.py."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from jobs.publish import PublishConfig
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.manifest import data_title
from pipelines.scoring.summary import SCORES
from pipelines.session import durable_folder
from pipelines.tracking.checkpoint_source import local_checkpoint
from pipelines.tracking.client import MlflowException, Run
from pipelines.tracking.mlflow_run import mlflow_client
from pipelines.tracking.reasons import reason_of
from sgmg.checkpoints import CONFIG, MODEL, TOKENIZER
from sgmg.segmenter import Segmenter

SHARED = [MODEL, CONFIG, TOKENIZER, "README.md"]
"""Files that are uploaded."""
VALID = "valid/"
"""Prefix of the metrics in which a training records its own scores."""
NO_SCORES = frozenset({"videos_lost", "mean"})
"""Metrics of that prefix that are no scores: a count, and the mean over several sets."""

log = logging.getLogger(__name__)


def publish(config: PublishConfig) -> Exit:
    """Writes the folder, prints what the card lacks, and uploads on request.

    Raises:
        JobError: the checkpoint or the scores do not exist, or the hub refused the upload.
    """
    out = durable_folder(config.out, "--out")
    if not out.is_local:
        raise JobError(f"--out {config.out!r} is not a local folder. Give a local folder; --push-to uploads it.")
    segmenter = Segmenter.from_checkpoint(
        local_checkpoint(config.checkpoint, config.storage),
        tokenizer=config.tokenizer or None,
        device="cpu",
        short_side=config.short_side,
    )
    metrics = {**_training_scores(segmenter.notes, config.storage), **_scores(config.scores)}
    notes = {**segmenter.notes, "metrics": metrics, **({"licence": config.licence} if config.licence else {})}
    shared = Segmenter(
        segmenter.model,
        segmenter.tokenizer,
        device="cpu",
        short_side=segmenter.short_side,
        window=segmenter.window,
        notes=notes,
    )
    shared.save_pretrained(out.path())
    for value, what, flag in ((metrics, "scores", "--scores"), (notes.get("licence"), "licence", "--licence")):
        if not value:
            print(f"the model card has no {what} ({flag} was not given)")
    print(f"{config.checkpoint} was written to {out.path()}; check README.md before you share it")
    if config.push_to:
        _push(Path(out.path()), config)
    return Exit.CLEAN


def _push(folder: Path, config: PublishConfig) -> None:
    """Uploads the written files, with any edits of the card."""
    api = HfApi()
    try:
        name = api.create_repo(config.push_to, private=not config.public, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Model of sgmg", allow_patterns=SHARED
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise JobError(
            f"The hub did not accept {config.push_to!r}: {reason} The files are kept in {folder}. Log in with "
            f"`hf auth login` or correct the name, and run the same command again."
        ) from error
    print(f"uploaded: {commit.commit_url}")


def _training_scores(notes: Mapping[str, Any], storage: str) -> dict[str, dict[str, float]]:
    """Returns the scores that training recorded at this checkpoint's step, by name of the validation data.

    Several sets are recorded as valid/<set>/<figure>, a single one without its name.
    """
    run_id = str(notes.get("mlflow_run") or "")
    if not run_id:
        return {}
    try:
        client = mlflow_client(storage)
        run = client.get_run(run_id)
        names = [name for name in run.data.metrics if name.startswith(VALID)]
        points = [point for name in names for point in client.get_metric_history(run_id, name)]
    except (MlflowException, JobError) as error:
        log.warning(
            "the model card has no scores of the training: MLflow run %s cannot be read: %s", run_id, reason_of(error)
        )
        return {}
    scores: dict[str, dict[str, float]] = {}
    for point in points:
        name, _, metric = point.key.removeprefix(VALID).rpartition("/")
        if point.step == notes.get("step") and metric not in NO_SCORES:
            scores.setdefault(name or _validated_on(run), {})[_figure(metric)] = point.value
    return scores


def _figure(metric: str) -> str:
    """Returns the name of the score that a metric records: metric names cannot contain & or @."""
    return metric.replace("_and_", "&").replace("_at_", "@").replace("_", " ")


def _validated_on(run: Run) -> str:
    """Returns the names of the datasets that a training run was validated on."""
    names = [
        one.dataset.name
        for one in (run.inputs.dataset_inputs if run.inputs else [])
        if any(tag.key == "mlflow.data.context" and tag.value == "validation" for tag in one.tags)
    ]
    return ", ".join(names) or "videos held out of the training data"


def _scores(paths: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Returns the figures that jobs/evaluate.py wrote, by dataset and split.

    Raises:
        JobError: a folder has no scores.json, or one that jobs/evaluate.py did not write.
    """
    scores = {}
    for path in paths:
        folder = Folder(durable_folder(path, "--scores").uri)
        try:
            values = json.loads(folder.read(SCORES))
            title = data_title(values["dataset"], synthetic=values.get("synthetic", False))
            name = "/".join([title, *filter(None, ["+".join(values.get("splits", []))])])
            scores[name] = {key: float(value) for key, value in values["figures"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise JobError(
                f"--scores {path} holds no {SCORES} of jobs/evaluate.py ({type(error).__name__}: {error}). Give the "
                f"folder that was its --out."
            ) from error
    return scores
