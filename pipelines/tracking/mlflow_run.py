"""The MLflow store, and the one MLflow run of each training, however often it is restarted."""

import json
import logging
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.validation import MAX_PARAMS_TAGS_PER_BATCH, MAX_TAG_VAL_LENGTH

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.safety.secrets import redacted, redacted_uri, redacted_values
from pipelines.session import durable_folder, in_submitted_job
from pipelines.tracking.params import code_version, cut, flat
from pipelines.tracking.reasons import reason_of
from pipelines.tracking.run_handle import ARTIFACTS, RunHandle, move_login, open_client

RUN_FILE, DATABASE = "mlflow_run.json", "mlflow.db"
KEY_TAG = "sgmg.run_key"

log = logging.getLogger(__name__)


def tracking_uri(storage: str, nodes: int = 1) -> str:
    """Returns the URI of MLflow, without credentials: MLFLOW_TRACKING_URI, or else a database in the storage folder.

    Args:
        storage: folder of the results, a path or URI.
        nodes: number of nodes of the cluster.

    Raises:
        JobError: a database there would be lost, or some node could not reach it; the message says what to set.
    """
    move_login()
    uri = redacted_uri(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if uri:
        if in_submitted_job() and re.match(r"sqlite:///[^/]", uri):
            raise JobError(
                f"MLFLOW_TRACKING_URI {uri!r} is a relative path, which in a submitted job vanishes with the job's "
                f"copy of the code. Write sqlite:////absolute/path/mlflow.db, or the http://… of an MLflow server."
            )
        return uri
    folder = durable_folder(storage, "--storage")
    server = "Start an MLflow server that all nodes reach, and set MLFLOW_TRACKING_URI=http://its-host:5000"
    if not folder.is_local:
        raise JobError(f"--storage {storage!r} is no local folder, so MLflow's database cannot be there. {server}.")
    if nodes > 1:
        raise JobError(
            f"{nodes} nodes cannot share an MLflow database in {folder.uri}. {server} (for several nodes on one "
            f"machine, sqlite:///{folder.uri}/{DATABASE} will do)."
        )
    return f"sqlite:///{folder.uri}/{DATABASE}"


def mlflow_client(storage: str) -> MlflowClient:
    """Returns a client of the existing MLflow store of a storage folder; MLflow itself would create an empty one.

    Raises:
        JobError: the database does not exist.
    """
    uri = tracking_uri(storage)
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.is_file():
        raise JobError(
            f"There is no MLflow database {database}. Give the --storage of the training, or set MLFLOW_TRACKING_URI."
        )
    return open_client(uri)


def run_folder(storage: str, experiment: str, name: str) -> Folder:
    """Returns the folder of a training in the storage.

    Raises:
        ValueError: a name would leave the storage folder.
        JobError: the storage would be deleted with the job.
    """
    return durable_folder(storage, "--storage").folder(experiment).folder(name)


def open_run(
    experiment: str,
    name: str,
    storage: str,
    params: Any,
    tags: Mapping[str, str] | None = None,
    *,
    nodes: int = 1,
) -> RunHandle:
    """Opens the MLflow run of a training: the existing run of this name and storage, or else a new one.

    Args:
        experiment: created if it is missing; its artifacts are in the storage folder if MLflow's database is.
        name: name of the training, in the UI and in the storage folder.
        storage: folder of the results, a path or URI.
        params: a dataclass, which may hold others, or a mapping. MLflow never changes a parameter: one that differs
            from the start of a continued run becomes the tag `changed.<name>`, and is logged.
        tags: further tags of the run.
        nodes: number of nodes of the cluster.

    Raises:
        JobError: MLflow cannot be used there, or cannot be reached; the message says what to do.
    """
    uri = tracking_uri(storage, nodes)
    folder = run_folder(storage, experiment, name)
    if uri == f"sqlite:///{durable_folder(storage, '--storage').uri}/{DATABASE}":
        Path(durable_folder(storage, "--storage").uri).mkdir(parents=True, exist_ok=True)
        artifacts = (Path(durable_folder(storage, "--storage").uri) / ARTIFACTS).as_uri()
    else:
        artifacts = None  # the server chooses
    key = _key(folder)
    client = open_client(uri)
    try:
        experiment_id = _experiment(client, experiment, artifacts)
        found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", ViewType.ACTIVE_ONLY, 1)
        labels = {**resolve_tags(), **code_version(), **(tags or {}), KEY_TAG: key}
        labels["sgmg.folder"] = redacted(folder.uri)
        run = found[0] if found else client.create_run(experiment_id, run_name=name, tags=labels)
        if found:
            client.update_run(run.info.run_id, status="RUNNING")
        _log_params(client, run, flat(params), labels)
    except MlflowException as error:
        raise JobError(
            f"MLflow at {uri} cannot be used: {reason_of(error).rstrip('.')}. Start it, correct MLFLOW_TRACKING_URI, "
            f"or unset that to keep runs in <storage>/{DATABASE}."
        ) from error
    log.info("MLflow run %s (%s) at %s", run.info.run_id, "continued" if found else "new", uri)
    return RunHandle(uri, experiment_id, run.info.run_id, bool(found))


def _key(folder: Folder) -> str:
    """Returns the key that finds the run again; written before the run is made, so that no kill can separate them."""
    noted = folder.read_if_there(RUN_FILE)
    if noted is not None:
        try:
            return json.loads(noted)["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(f"{folder.path(RUN_FILE)} is damaged ({error}). Remove it to start a new run.") from error
    key = uuid.uuid4().hex
    folder.write(RUN_FILE, (json.dumps({"key": key, "found by": f"MLflow tag {KEY_TAG}"}) + "\n").encode())
    return key


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another job was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage != "active":
        raise JobError(
            f"The MLflow experiment {name!r} was deleted. Bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or choose another name."
        )
    return found.experiment_id


def _log_params(client: MlflowClient, run: Run, params: Mapping[str, str], labels: Mapping[str, str]) -> None:
    """Logs new parameters, changed ones as tags, and the labels of a continued run again."""
    held = redacted_values(run.data.params)
    changed = {name: value for name, value in params.items() if held.get(name, value) != value}
    again = {f"changed.{name}" for name in params} & set(run.data.tags)  # changed before, perhaps back by now
    tags = {f"changed.{name}": value for name, value in params.items() if name in changed or f"changed.{name}" in again}
    if changed:
        changes = ", ".join(f"{name} {held[name]} -> {value}" for name, value in sorted(changed.items()))
        log.warning("The run %s goes on with other parameters, kept as tags changed.*: %s", run.info.run_id, changes)
    new = [Param(name, value) for name, value in params.items() if name not in held]
    marks = [RunTag(name, cut(value, MAX_TAG_VAL_LENGTH)) for name, value in {**labels, **tags}.items()]
    for start in range(0, len(new), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run.info.run_id, params=new[start : start + MAX_PARAMS_TAGS_PER_BATCH])
    for start in range(0, len(marks), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run.info.run_id, tags=marks[start : start + MAX_PARAMS_TAGS_PER_BATCH])
