"""Logging to MLflow from rank 0: never waits, never fails, and loses nothing while MLflow is down."""

import logging
import tempfile
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

from pipelines.files import Folder
from pipelines.tracking.mlflow_run import run_folder
from pipelines.tracking.object_spool import SUFFIX
from pipelines.tracking.outbox import REFUSED, Outbox, Refused, open_spool
from pipelines.tracking.run_handle import SPOOL, RunHandle
from pipelines.tracking.spool import Entry

_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "NOT_IMPLEMENTED")
_FILES = "files"

log = logging.getLogger(__name__)


class MetricLog:
    """A log of metrics and pictures of one MLflow run.

    Entries are written to a folder first, and sent to MLflow from there. Those that a killed process left there are
    sent by the next one; a metric that is sent twice counts once, as step, time and value are the same.

    Args:
        run: handle from `open_run`.
        folder: for this run only, in the storage that its next start sees; created if it is missing.
        system_seconds: seconds between two measurements of CPU, memory, disk, network and GPU; None: no measurements.

    Raises:
        OSError: the folder cannot be created or read.
    """

    def __init__(self, run: RunHandle, folder: Folder, *, system_seconds: float | None = 10.0) -> None:
        self._run, self._client, self._folder = run, run.client(), folder
        self._step = 0
        files = folder.folder(_FILES)
        _delete_orphans(files)
        self._metrics = Outbox(folder.folder("metrics"), self._send_metrics, f"metrics to MLflow at {run.uri}")
        self._files = Outbox(files, self._send_picture, f"pictures to MLflow at {run.uri}", batch_size=1, linger=0)
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
        """Logs a picture under an artifact path such as `valid/step_00000003/best.png`; replaces an earlier one."""
        place = f"{uuid.uuid4().hex}/{PurePosixPath(name).name}"
        try:
            self._folder.write(f"{_FILES}/{place}", png)
        except OSError as error:
            log.warning("the picture %s is not logged: %s", name, error)
            return
        self._files.put({"from": place, "to": str(PurePosixPath(name).parent)})

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
            log.warning(
                "%d entries for MLflow at %s stay in %s for the next start", left, self._run.uri, self._folder.path()
            )
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

    def _send_picture(self, entries: list[Entry]) -> None:
        for entry in entries:
            parent, _, name = entry["from"].partition("/")
            png = self._folder.read_if_there(f"{_FILES}/{entry['from']}")
            if png is None:  # it was sent before a kill
                continue
            with tempfile.TemporaryDirectory(prefix="sgmg-picture-") as staging:
                (Path(staging) / name).write_bytes(png)
                try:
                    self._client.log_artifact(
                        self._run.run_id, f"{staging}/{name}", None if entry["to"] == "." else entry["to"]
                    )
                except (MlflowException, requests.HTTPError) as error:
                    raise _classify_error(error) from error
            self._folder.remove_folder(f"{_FILES}/{parent}")

    def _watch_system(self, seconds: float) -> None:
        """Measures with MLflow's own gauges; MLflow's own thread would end for good when the server is down."""
        try:
            monitor = SystemMetricsMonitor(self._run.run_id, tracking_uri=self._client.tracking_uri)
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


def spool_folder(storage: str, experiment: str, name: str) -> Folder:
    """Returns the folder in which a run's `MetricLog` keeps its entries: beside its results, where every node sees it.

    Raises:
        JobError: the storage would be deleted with the job.
    """
    return run_folder(storage, experiment, name).folder(SPOOL)


def drain(run: RunHandle, folder: Folder, seconds: float = 600.0) -> int:
    """Sends the entries that rank 0 left, after all workers have ended. Returns the number of entries left."""
    found = MetricLog(run, folder, system_seconds=None)
    found.flush(seconds)
    return found.close()


def _delete_orphans(files: Folder) -> None:
    """Deletes pictures that a killed process had written, but not yet added as entries."""
    known = {entry["from"].partition("/")[0] for entry in open_spool(files).entries()}
    for name in files.names():
        if not name.endswith((SUFFIX, REFUSED)) and name not in known:
            files.remove_folder(name)


def _classify_error(error: Exception) -> Exception:
    """Returns the error, as `Refused` if another attempt cannot help."""
    if isinstance(error, MlflowException):
        return Refused(str(error)) if error.error_code in _REFUSALS else error
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return Refused(str(error)) if error.response.status_code in (400, 413) else error
    return error
