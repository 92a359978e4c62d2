"""Logging to MLflow from rank 0: never waits, never fails, and loses nothing while MLflow is down."""

import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import requests
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.validation import MAX_METRICS_PER_BATCH

from pipelines.tracking.mlflow_run import SPOOL, RunHandle, run_folder
from pipelines.tracking.models import Role, store_checkpoint
from pipelines.tracking.outbox import Outbox, Refused
from pipelines.tracking.spool import Entry, Spool
from sgmg.checkpoints import TRAINING

_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "NOT_IMPLEMENTED")
_FILES = "files"

log = logging.getLogger(__name__)


class MetricLog:
    """A log of metrics, pictures, folders and checkpoints of one MLflow run.

    Entries are written to a folder first, and sent to MLflow from there. Those that a killed process left there are
    sent by the next one; a metric that is sent twice counts once, as step, time and value are the same.

    Args:
        run: handle from `open_run`.
        folder: for this run only, on a disk that its next start sees; created if it is missing.
        system_seconds: seconds between two measurements of CPU, memory, disk, network and GPU; None: no measurements.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, run: RunHandle, folder: Path, *, system_seconds: float | None = 10.0) -> None:
        self._run, self._client, self._folder = run, run.client(), folder
        self._step = 0
        self._guard = threading.Lock()
        self._pending: dict[str, Path] = {}  # the checkpoint of each role that waits to be sent
        self._sending: Path | None = None
        _delete_orphans(folder / _FILES)
        self._metrics = Outbox(folder / "metrics", self._send_metrics, f"metrics to MLflow at {run.uri}")
        self._files = Outbox(folder / _FILES, self._send_file, f"files to MLflow at {run.uri}", batch_size=1, linger=0)
        self._closing = threading.Event()
        self._gauges = threading.Thread(target=self._watch_system, args=[system_seconds or 0], daemon=True)
        if system_seconds:
            self._gauges.start()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs numbers of an optimiser step, by name."""
        self._step = step
        values = {name: float(value) for name, value in metrics.items()}
        self._metrics.put({"ms": time.time_ns() // 1_000_000, "step": step, "values": values})

    def log_picture(self, name: str, png: bytes) -> None:
        """Logs a picture under an artifact path such as `valid/epoch_003.png`; replaces an earlier one."""
        place = self._new_path(name)
        try:
            place.parent.mkdir(parents=True)
            place.write_bytes(png)
        except OSError as error:
            log.warning("the picture %s is not logged: %s", name, error)
            return
        self._files.put({"kind": "file", "from": self._relative(place), "to": str(PurePosixPath(name).parent)})

    def log_folder(self, name: str, path: Path) -> None:
        """Logs a folder under an artifact path. Its files are linked or copied, so the caller may delete it."""
        place = self._new_path(name)
        if self._hold(path, place, name):
            self._files.put({"kind": "folder", "from": self._relative(place), "to": name})

    def log_checkpoint(self, role: Role, step: int, path: Path) -> None:
        """Logs a checkpoint as the run's best or last, without the state of the optimiser.

        Its files are linked or copied, so the caller may delete the folder.
        """
        place = self._new_path(f"step_{step:08d}")
        if not self._hold(path, place, f"the checkpoint of step {step}"):
            return
        entry = {"kind": "checkpoint", "from": self._relative(place), "role": role, "step": step}
        self._files.put(entry)
        with self._guard:
            former, self._pending[role] = self._pending.get(role), place
            if former and former != self._sending:  # it would be replaced as soon as it was sent
                shutil.rmtree(former.parent, ignore_errors=True)

    def flush(self, seconds: float = 10.0) -> bool:
        """Returns whether everything is sent within this time; gives up at once if MLflow is down."""
        end = time.monotonic() + seconds
        sent = self._metrics.flush(seconds)
        return self._files.flush(max(0.0, end - time.monotonic())) and sent

    def close(self, seconds: float = 20.0) -> int:
        """Sends entries for this time. Returns the number left in the folder, for the next start or `drain`."""
        end = time.monotonic() + seconds
        self._closing.set()
        if self._gauges.ident is not None:
            self._gauges.join(seconds / 4)
        left = self._metrics.close(max(1.0, (end - time.monotonic()) / 2))
        left += self._files.close(max(1.0, end - time.monotonic()))
        if left:
            log.warning("%d entries for MLflow at %s stay in %s for the next start", left, self._run.uri, self._folder)
        return left

    def _send_metrics(self, entries: list[Entry]) -> None:
        metrics = [
            Metric(name, value, entry["ms"], entry["step"])
            for entry in entries
            for name, value in entry["values"].items()
        ]
        try:
            for start in range(0, len(metrics), MAX_METRICS_PER_BATCH):
                self._client.log_batch(self._run.run_id, metrics=metrics[start : start + MAX_METRICS_PER_BATCH])
        except MlflowException as error:
            raise _classify_error(error) from error

    def _send_file(self, entries: list[Entry]) -> None:
        for entry in entries:
            place = self._folder / _FILES / entry["from"]
            with self._guard:
                self._sending = place
            try:
                if place.exists():  # else it was sent before a kill, or replaced since
                    self._upload(entry, place)
            except (MlflowException, requests.HTTPError) as error:
                raise _classify_error(error) from error
            finally:
                with self._guard:
                    self._sending = None
                    if self._pending.get(entry.get("role", ""), place) != place:  # replaced in the meantime
                        shutil.rmtree(place.parent, ignore_errors=True)
            shutil.rmtree(place.parent, ignore_errors=True)

    def _upload(self, entry: Entry, place: Path) -> None:
        run_id = self._run.run_id
        match entry["kind"]:
            case "file":
                self._client.log_artifact(run_id, str(place), None if entry["to"] == "." else entry["to"])
            case "folder":
                self._client.log_artifacts(run_id, str(place), entry["to"])
            case _:
                store_checkpoint(self._client, run_id, entry["role"], entry["step"], place)

    def _new_path(self, name: str) -> Path:
        return self._folder / _FILES / uuid.uuid4().hex / PurePosixPath(name).name

    def _relative(self, place: Path) -> str:
        return place.relative_to(self._folder / _FILES).as_posix()

    def _hold(self, path: Path, place: Path, what: str) -> bool:
        """Links or copies a folder, so that it can be sent after the caller has deleted it. Returns whether it did."""
        try:
            shutil.copytree(path, place, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(TRAINING))
            return True
        except (OSError, shutil.Error) as error:
            shutil.rmtree(place.parent, ignore_errors=True)
            log.warning("%s is not logged to MLflow: %s", what, error)
            return False

    def _watch_system(self, seconds: float) -> None:
        """Measures with MLflow's own gauges; MLflow's own thread would end for good when the server is down."""
        try:
            monitor = SystemMetricsMonitor(self._run.run_id, tracking_uri=self._run.uri)
            while True:
                last = self._closing.wait(seconds)
                monitor.collect_metrics()
                values = {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                self._metrics.put({"ms": time.time_ns() // 1_000_000, "step": self._step, "values": values})
                if last:
                    return
                for gauge in monitor.monitors:
                    gauge.clear_metrics()
        except Exception as error:  # Each gauge raises errors of its own; training continues without them.
            log.warning("system metrics end here: %s: %s", type(error).__name__, error)


def spool_folder(storage: str, experiment: str, name: str) -> Path:
    """Returns the folder in which a run's `MetricLog` keeps its entries: beside the results, or in a local cache.

    Raises:
        JobError: the storage would be deleted with the job.
    """
    folder = run_folder(storage, experiment, name).folder(SPOOL)
    if folder.is_local:
        return Path(folder.uri)
    return Path.home() / ".cache" / "sgmg" / SPOOL / re.sub(r"[^\w.\-]+", "_", folder.uri)


def drain(run: RunHandle, folder: Path, seconds: float = 600.0) -> int:
    """Sends the entries that rank 0 left, after all workers have ended. Returns the number of entries left."""
    if not folder.is_dir():
        return 0
    found = MetricLog(run, folder, system_seconds=None)
    found.flush(seconds)
    return found.close()


def _delete_orphans(folder: Path) -> None:
    """Deletes files that a killed process had copied, but not yet added as entries."""
    known = {entry["from"].partition("/")[0] for entry in Spool(folder).entries()}
    for place in folder.iterdir():
        if place.is_dir() and place.name not in known:
            shutil.rmtree(place)


def _classify_error(error: Exception) -> Exception:
    """Returns the error, as `Refused` if another attempt cannot help."""
    if isinstance(error, MlflowException):
        return Refused(str(error)) if error.error_code in _REFUSALS else error
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return Refused(str(error)) if error.response.status_code in (400, 413) else error
    return error


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)
