"""Sources of `--checkpoint` and `--init`: a file, a folder, an MLflow run or a registered model."""

import logging
import re
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mlflow.artifacts
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pyarrow import fs

from pipelines.errors import JobError
from pipelines.files import UNFINISHED, Folder, is_uri
from pipelines.session import durable_folder, in_submitted_job
from pipelines.tracking.mlflow_run import ARTIFACTS, SPOOL, mlflow_client
from pipelines.tracking.models import ROLES, stored_checkpoints
from sgmg.checkpoints import CONFIG, MODEL

CACHE = "checkpoint_cache"
NOT_RUNS = (CACHE, ARTIFACTS, SPOOL)  # copies of checkpoints, beside the runs in a storage folder
DEPTH = 3  # folders between that of a run and its checkpoints, at most

log = logging.getLogger(__name__)


def local_checkpoint(spec: str, storage: str) -> Path:
    """Returns the local path of a checkpoint, for `sgmg.checkpoints.load`. A remote one is downloaded once.

    Args:
        spec: a file; a folder of a checkpoint, or of a run with several, local or in an object store;
            `mlflow:<run id>` with `/best` (the default, if there is one) or `/last`; or
            `models:/<name>/<version or alias>`.
        storage: folder of the results. Its MLflow is used, unless MLFLOW_TRACKING_URI names another.

    Raises:
        JobError: the checkpoint does not exist; the message names those that do.
    """
    try:
        if spec.startswith("mlflow:"):
            return _of_run(spec, storage)
        if spec.startswith("models:"):
            return _of_model(spec, storage)
        return _of_folder(spec, storage)
    except (MlflowException, OSError, pa.ArrowException) as error:
        raise JobError(f"The checkpoint {spec!r} cannot be fetched: {error}") from error


def on_any_node(spec: str, storage: str, path: Path) -> Callable[[], Path]:
    """Returns a function that finds the checkpoint at `path` on any node, and downloads it if needed.

    A local path is taken to be on a disk that all nodes share; the cache of downloads need not be.
    """
    if is_uri(spec) or spec.startswith(("mlflow:", "models:")):
        return partial(local_checkpoint, spec, durable_folder(storage, "--storage").uri)
    return partial(Path, path)


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
        raise JobError(f"There is no MLflow run {run_id!r} at {client.tracking_uri}. {_runs(client)}") from error
    held = stored_checkpoints(run)
    path = held.get(role) if role in ROLES else next((held[name] for name in ROLES if name in held), None)
    if path is None:
        raise JobError(
            f"The MLflow run {run_id} ({run.info.run_name}, {run.info.status}) has no {role or 'best or last'} "
            f"checkpoint; it has {', '.join(held) or 'none'}. {_runs(client)}"
        )
    cached = _cache(storage) / run_id / Path(path).name
    return _fetched(cached, lambda folder: _download(client, f"{run.info.artifact_uri}/{path}", folder))


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
        raise JobError(f"There is no {spec} at {client.tracking_uri}. {_models(client, name)}") from error
    # Its time tells it from one of the same number in a store that was made anew.
    cached = _cache(storage) / "models" / name / f"{model.version}-{model.creation_timestamp}"
    return _fetched(cached, lambda folder: _download(client, str(model.source), folder))


def _of_folder(spec: str, storage: str) -> Path:
    if not is_uri(spec) and Path(spec).expanduser().is_file():
        return Path(spec).expanduser().resolve()
    folder = Folder(spec)
    found = _newest(folder, spec)
    if isinstance(found.filesystem, fs.LocalFileSystem):
        return Path(found.path())
    made = found.filesystem.get_file_info(found.path(MODEL)).mtime_ns  # tells it from one that replaced it
    name = re.sub(r"[^\w.\-]+", "_", found.uri)
    cached = _cache(storage) / "folders" / f"{name}-{made}"
    return _fetched(cached, found.download)


def _newest(folder: Folder, spec: str) -> Folder:
    """Returns the folder itself if it is a checkpoint; else the best in it, or the one of the highest number."""
    if _is_checkpoint(folder):
        return folder
    inside = _checkpoints(folder, DEPTH)
    if not inside:
        held = ", ".join(folder.names()[:8]) or "nothing, or does not exist"
        copy = " A submitted job runs in a copy of the code: give an absolute path." if in_submitted_job() else ""
        raise JobError(
            f"There is no checkpoint at {spec}: {folder.path()} holds {held}. A checkpoint is a folder with "
            f"{CONFIG} and {MODEL}, a published .pth file, mlflow:<run id>, or models:/<name>/<version>.{copy}"
        )
    names = {found.name: found for found in inside}
    if len(inside) == 1 or "best" in names:
        return names.get("best", inside[0])
    kinds = {re.sub(r"\d+", "#", name) for name in names}
    if len(kinds) > 1 or "#" not in kinds.pop() or len(names) < len(inside):
        paths = "\n  ".join(found.uri for found in inside)
        raise JobError(f"{spec} holds several checkpoints. Give one of them:\n  {paths}")
    chosen = max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    log.info("%s holds %d checkpoints, the newest is %s", spec, len(inside), chosen)
    return names[chosen]


def _checkpoints(folder: Folder, depth: int) -> list[Folder]:
    """Returns all checkpoints in a folder. Hidden folders are left by killed writers."""
    inside = [folder.folder(name) for name in folder.names() if not name.startswith(".") and name not in NOT_RUNS]
    found = [sub for sub in inside if _is_checkpoint(sub)]
    deeper = [sub for sub in inside if sub not in found] if depth > 1 else []
    return found + [checkpoint for sub in deeper for checkpoint in _checkpoints(sub, depth - 1)]


def _is_checkpoint(folder: Folder) -> bool:
    return folder.has(CONFIG) and folder.has(MODEL)


def _cache(storage: str) -> Path:
    folder = durable_folder(storage, "--storage")
    return Path(folder.uri) / CACHE if folder.is_local else Path.home() / ".cache" / "sgmg" / CACHE


def _fetched(path: Path, fetch: Callable[[Path], object]) -> Path:
    """Returns the folder, after `fetch` has filled it whole or not at all. Several processes may call this at once."""
    if path.is_dir():
        return path
    fresh = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{path.name}")
    try:
        fresh.mkdir(parents=True)
        fetch(fresh)
        if not _is_checkpoint(Folder(str(fresh))):
            held = ", ".join(sorted(file.name for file in fresh.iterdir())[:8]) or "nothing"
            raise JobError(f"The download is no checkpoint: it lacks {CONFIG} or {MODEL}, and holds {held}.")
        try:
            fresh.rename(path)
        except OSError:
            if not path.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


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
