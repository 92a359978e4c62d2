"""Sources of `--checkpoint` and `--init`: a file, a folder, an MLflow run or a registered model."""

import logging
import re
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from pipelines.errors import JobError
from pipelines.files import UNFINISHED, Folder, is_uri
from pipelines.safety.secrets import redacted
from pipelines.session import durable_folder, in_submitted_job
from pipelines.tracking.run_handle import ARTIFACTS, SPOOL
from sgmg.checkpoints import AVERAGED, CONFIG, MODEL

CACHE = "checkpoint_cache"
NOT_RUNS = (CACHE, ARTIFACTS, SPOOL)  # copies of checkpoints, beside the runs in a storage folder
DEPTH = 3  # folders between that of a run and its checkpoints, at most

log = logging.getLogger(__name__)


def local_checkpoint(spec: str, storage: str) -> Path:
    """Returns the local path of a checkpoint, for `sgmg.checkpoints.load`. A remote one is downloaded once.

    Args:
        spec: a file; a folder of a checkpoint, or of a run with several, local or in an object store;
            `mlflow:<run id>` with `/best` (the default, if there is one) or `/last`; or
            `models:/<name>/<version or alias>`. Each may end in /model_ema.safetensors, for the averaged weights.
        storage: folder of the results. Its MLflow is used, unless MLFLOW_TRACKING_URI names another.

    Raises:
        JobError: the checkpoint does not exist; the message names those that do.
    """
    whole, _, last = spec.rpartition("/")
    if last == AVERAGED and whole:
        return _averaged(local_checkpoint(whole, storage), spec)
    try:
        if spec.startswith(("mlflow:", "models:")):
            from pipelines.tracking.logged_checkpoint import logged_checkpoint  # imports MLflow, for seconds

            return logged_checkpoint(spec, storage)
        return _of_folder(spec, storage)
    except (OSError, pa.ArrowException) as error:
        raise JobError(f"The checkpoint {spec!r} cannot be fetched: {error}") from error


def _averaged(checkpoint: Path, spec: str) -> Path:
    if not (checkpoint / AVERAGED).is_file():
        raise JobError(
            f"{spec!r}: {checkpoint} has no averaged weights. It was trained without --ema, or is the best of a "
            f"run, which is one of the two. Give a folder step_…, or mlflow:<run id>/last/{AVERAGED}."
        )
    return checkpoint / AVERAGED


def on_any_node(spec: str, storage: str, path: Path) -> Callable[[], Path]:
    """Returns a function that finds the checkpoint at `path` on any node, and downloads it if needed.

    A local path is taken to be on a disk that all nodes share; the cache of downloads need not be.
    """
    if is_uri(spec) or spec.startswith(("mlflow:", "models:")):
        return partial(local_checkpoint, spec, durable_folder(storage, "--storage").uri)
    return partial(Path, path)


def _of_folder(spec: str, storage: str) -> Path:
    if not is_uri(spec) and Path(spec).expanduser().is_file():
        return Path(spec).expanduser().resolve()
    folder = Folder(spec)
    found = _newest(folder, spec)
    if isinstance(found.filesystem, fs.LocalFileSystem):
        return Path(found.path())
    made = found.filesystem.get_file_info(found.path(MODEL)).mtime_ns  # tells it from one that replaced it
    name = re.sub(r"[^\w.\-]+", "_", redacted(found.uri))
    cached = checkpoint_cache(storage) / "folders" / f"{name}-{made}"
    return fetched(cached, found.download)


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
    inside = [folder.folder(name) for name in folder.names() if name not in NOT_RUNS]
    found = [sub for sub in inside if _is_checkpoint(sub)]
    deeper = [sub for sub in inside if sub not in found] if depth > 1 else []
    return found + [checkpoint for sub in deeper for checkpoint in _checkpoints(sub, depth - 1)]


def _is_checkpoint(folder: Folder) -> bool:
    return folder.has(CONFIG) and folder.has(MODEL)


def checkpoint_cache(storage: str) -> Path:
    """Returns the local folder of downloaded checkpoints: in the storage if that is local, else in the home folder."""
    folder = durable_folder(storage, "--storage")
    return Path(folder.uri) / CACHE if folder.is_local else Path.home() / ".cache" / "sgmg" / CACHE


def fetched(path: Path, fetch: Callable[[Path], object]) -> Path:
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
