"""Checkpoints that MLflow holds: of a run, or of a registered model."""

import re
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.errors import JobError
from pipelines.safety.secrets import redacted
from pipelines.tracking.checkpoint_source import checkpoint_cache, fetched
from pipelines.tracking.mlflow_run import mlflow_client
from pipelines.tracking.models import ROLES, stored_checkpoints
from pipelines.tracking.reasons import reason_of


def logged_checkpoint(spec: str, storage: str) -> Path:
    """Returns the local path of a checkpoint of MLflow; it is downloaded once.

    Args:
        spec: `mlflow:<run id>` with `/best` or `/last`, or `models:/<name>/<version or alias>`.
        storage: folder of the results. Its MLflow is used, unless MLFLOW_TRACKING_URI names another.

    Raises:
        JobError: the checkpoint does not exist, or MLflow does not answer.
        OSError: it cannot be downloaded.
    """
    try:
        return _of_run(spec, storage) if spec.startswith("mlflow:") else _of_model(spec, storage)
    except MlflowException as error:
        raise JobError(f"The checkpoint {spec!r} cannot be fetched: {reason_of(error)}") from error


def _of_run(spec: str, storage: str) -> Path:
    run_id, _, role = spec.removeprefix("mlflow:").strip("/").partition("/")
    if role not in ("", *ROLES):
        raise JobError(f"{spec!r} asks for {role!r}; a run keeps {' and '.join(ROLES)}: mlflow:{run_id}/{ROLES[0]}.")
    client = mlflow_client(storage)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise JobError(
            f"There is no MLflow run {run_id!r} at {redacted(client.tracking_uri)}. {_runs(client)}"
        ) from error
    held = stored_checkpoints(run)
    path = held.get(role) if role in ROLES else next((held[name] for name in ROLES if name in held), None)
    if path is None:
        raise JobError(
            f"The MLflow run {run_id} ({run.info.run_name}, {run.info.status}) has no {role or 'best or last'} "
            f"checkpoint; it has {', '.join(held) or 'none'}. {_runs(client)}"
        )
    cached = checkpoint_cache(storage) / run_id / Path(path).name
    return fetched(cached, lambda folder: _download(client, f"{run.info.artifact_uri}/{path}", folder))


def _of_model(spec: str, storage: str) -> Path:
    found = re.fullmatch(r"models:/+([^/@]+)[/@]([^/@]+)", spec)
    if not found:
        raise JobError(f"{spec!r} is not of the form models:/<name>/<version or alias>.")
    name, version = found.groups()
    client = mlflow_client(storage)
    try:
        model = (
            client.get_model_version(name, version)
            if version.isdecimal()
            else client.get_model_version_by_alias(name, version)
        )
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise JobError(f"There is no {spec} at {redacted(client.tracking_uri)}. {_models(client, name)}") from error
    # Its time tells it from one of the same number in a store that was made anew.
    cached = checkpoint_cache(storage) / "models" / name / f"{model.version}-{model.creation_timestamp}"
    return fetched(cached, lambda folder: _download(client, str(model.source), folder))


def _download(client: MlflowClient, source: str, folder: Path) -> None:
    mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=client.tracking_uri)
    # Some stores put a folder's files into dst_path, others a folder of its name.
    inner = folder / source.rstrip("/").rpartition("/")[2]
    if inner.is_dir():
        for file in inner.iterdir():
            file.rename(folder / file.name)
        inner.rmdir()


def _runs(client: MlflowClient) -> str:
    """Lists the newest runs that have a checkpoint."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=200)
    shown = [
        f"{run.info.run_id} ({run.info.run_name}: {', '.join(stored_checkpoints(run))})"
        for run in runs
        if stored_checkpoints(run)
    ]
    return f"Runs with checkpoints: {', '.join(shown[:5]) or 'none'}."


def _models(client: MlflowClient, name: str) -> str:
    versions = client.search_model_versions(f"name = '{name}'")
    if versions:
        aliases = client.get_registered_model(name).aliases
        shown = [str(version.version) for version in versions] + sorted(aliases)
        return f"{name} has {', '.join(shown[:20])}."
    names = [model.name for model in client.search_registered_models(max_results=20)]
    return f"Registered models: {', '.join(names) or 'none'}."
