"""Checkpoints in MLflow: artifacts of their run, and versions of a registered model."""

import hashlib
import logging
from pathlib import Path
from typing import Literal, get_args

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipelines.errors import JobError
from pipelines.tracking.reasons import reason_of
from pipelines.tracking.run_handle import RunHandle

Role = Literal["best", "last"]
FOLDER = "checkpoints"
_DIGEST = ".sha256"
ROLES: tuple[Role, ...] = get_args(Role)

log = logging.getLogger(__name__)


def stored_checkpoints(run: Run) -> dict[Role, str]:
    """Returns the artifact folders of a run's best and last checkpoints, as far as they exist."""
    return {role: run.data.tags[_tag(role)] for role in ROLES if _tag(role) in run.data.tags}


def store_checkpoint(client: MlflowClient, run_id: str, role: Role, step: int, folder: Path) -> None:
    """Uploads a checkpoint as the best or the last of its run; removes others, except registered ones.

    The folder of a current or registered checkpoint is never rewritten: a kill at any moment leaves a whole checkpoint.
    Other weights of the same step, such as the average of its weights or those that a run comes to after a --change,
    get a folder of their own.
    """
    target, digest = f"{FOLDER}/step_{step:08d}", _digest(folder)
    run = client.get_run(run_id)
    held = stored_checkpoints(run)
    digests = {path: run.data.tags.get(_tag(of, _DIGEST)) for of, path in held.items()}
    if digests.get(target, digest) != digest or (target not in held.values() and _versions_of(client, run, target)):
        target = f"{target}-{digest[:8]}"
    if target not in held.values():
        client.log_artifacts(run_id, str(folder), target)
    client.set_tag(run_id, _tag(role, _DIGEST), digest)
    client.set_tag(run_id, _tag(role), target)
    held[role] = target
    for found in client.list_artifacts(run_id, FOLDER):  # the one before, and uploads that a kill cut short
        if found.path not in held.values() and not _versions_of(client, run, found.path):
            _delete(run, found.path, client.tracking_uri)


def register(run: RunHandle, artifact_path: str, name: str) -> str:
    """Registers an artifact folder as a version of the model `name`, unless it is one. Returns the version.

    Raises:
        JobError: the run has no such folder, or MLflow cannot be used.
    """
    client = run.client()
    try:
        found = client.get_run(run.run_id)
        if not client.list_artifacts(run.run_id, artifact_path):
            held = ", ".join(f"{path} ({role})" for role, path in stored_checkpoints(found).items()) or "no checkpoint"
            raise JobError(f"MLflow run {run.run_id} has no artifacts {artifact_path!r} to register; it has {held}.")
        for version in _versions_of(client, found, artifact_path):
            if version.name == name:
                return str(version.version)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(name, _source(found, artifact_path), run.run_id)
    except MlflowException as error:
        raise JobError(
            f"{artifact_path} of MLflow run {run.run_id} cannot be registered as {name!r}: {reason_of(error)}"
        ) from error
    log.info("registered %s of run %s as models:/%s/%s", artifact_path, run.run_id, name, version.version)
    return str(version.version)


def _tag(role: Role, what: str = "") -> str:
    return f"checkpoint.{role}{what}"


def _digest(folder: Path) -> str:
    """Returns the SHA-256 of the weights in a checkpoint's folder."""
    digest = hashlib.sha256()
    for weights in sorted(folder.glob("[!.]*.safetensors")):
        with weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _source(run: Run, artifact_path: str) -> str:
    return f"{run.info.artifact_uri}/{artifact_path}"


def _versions_of(client: MlflowClient, run: Run, artifact_path: str) -> list:
    versions = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    return [version for version in versions if version.source == _source(run, artifact_path)]


def _delete(run: Run, artifact_path: str, uri: str) -> None:
    try:
        get_artifact_repository(str(run.info.artifact_uri), tracking_uri=uri).delete_artifacts(artifact_path)
    except (NotImplementedError, MlflowException, OSError) as error:
        log.warning(
            "the former checkpoint %s stays among the artifacts of run %s: %s",
            *(artifact_path, run.info.run_id, reason_of(error)),
        )
