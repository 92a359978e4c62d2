"""Results of a run: its best and last checkpoints are sent to MLflow from the run's storage, the best is registered."""

import logging
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from pipelines.files import Folder
from pipelines.tracking.models import Role, register, store_checkpoint
from pipelines.tracking.run_handle import RunHandle
from pipelines.training.best import fetch_best, read_best
from pipelines.training.checkpoints import fetch_checkpoint, latest_checkpoint, step_of
from sgmg.checkpoints import TRAINING

log = logging.getLogger(__name__)

_SECONDS = 10.0
"""Between two looks for a new best checkpoint. They cost one small read each."""
_FAILURES = 3
"""Failures in a row to send it that are not worth a word."""


class BestUploads:
    """A thread of the driver that sends the best checkpoint to MLflow whenever there is a new one.

    It reads it from the run's storage, so it does not matter on which node the worker that wrote it is, or was. While
    MLflow is down it tries again. Use as `with BestUploads(…): trainer.fit()`.
    """

    def __init__(self, run: Folder, tracking: RunHandle) -> None:
        self._run, self._tracking = run, tracking
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "BestUploads":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if kind is None:  # else it ends with the process, and the next start sends what is missing
            self._thread.join()

    def _watch(self) -> None:
        sent = ""
        failures = 0
        while not self._end.wait(_SECONDS):
            try:
                best = read_best(self._run)
                if best and best.id != sent and send_best(self._run, self._tracking):
                    sent, failures = best.id, 0
            except Exception as error:  # MLflow's stores raise errors of their own; training goes on
                failures += 1
                if failures == _FAILURES:  # one may be a checkpoint that was replaced while it was read
                    log.warning("the best checkpoint is not sent to MLflow at %s: %s", self._tracking.uri, error)


def send_best(run: Folder, tracking: RunHandle) -> bool:
    """Sends the best checkpoint in the storage to MLflow. Returns whether it stayed the best meanwhile.

    Raises:
        Exception: the storage or MLflow cannot be used.
    """
    best = read_best(run)
    if best is None:
        return False
    with tempfile.TemporaryDirectory(prefix="sgmg-best-") as staging:
        copy = _copied(fetch_best(run, Path(staging)), Path(staging))
        if read_best(run) != best:  # rank 0 has replaced it: its files may be of two steps
            return False
        store_checkpoint(tracking.client(), tracking.run_id, "best", best.step, copy)
    return True


def store_results(run: Folder, tracking: RunHandle, model_name: str) -> bool:
    """Sends the best and the last checkpoint of a trained run to MLflow, and registers the best as a model version.

    Without any score the last counts as the best.

    Args:
        run: the run's folder, with all checkpoints.
        tracking: its MLflow run.
        model_name: name of the registered model.

    Returns:
        Whether MLflow has them. If it is down, the next start of the finished run tries again.
    """
    name, scored = latest_checkpoint(run), read_best(run) is not None
    assert name is not None
    try:
        log.info("sending the checkpoints to MLflow at %s", tracking.uri)
        with tempfile.TemporaryDirectory(prefix="sgmg-last-") as staging:
            last = _copied(fetch_checkpoint(run, name, Path(staging)), Path(staging))
            roles: tuple[Role, ...] = ("last",) if scored else ("last", "best")
            for role in roles:
                store_checkpoint(tracking.client(), tracking.run_id, role, step_of(name), last)
        if scored and not send_best(run, tracking):
            raise FileNotFoundError("another process replaces the best checkpoint")
        held = tracking.client().get_run(tracking.run_id).data.tags["checkpoint.best"]
        version = register(tracking, held, model_name)
    except Exception as error:  # MLflow's stores raise errors of their own
        log.warning(
            "Training is done, but MLflow at %s cannot keep its result: %s. It lies in %s; the same command tries "
            "again.", tracking.uri, error, run.path(),
        )  # fmt: skip
        return False
    log.info("models:/%s/%s is the best of this run; mlflow:%s too", model_name, version, tracking.run_id)
    return True


def _copied(checkpoint: Path, staging: Path) -> Path:
    """Returns a copy of a checkpoint without its training state; of hard links where that is possible."""
    copy = staging / "copy"
    shutil.copytree(checkpoint, copy, copy_function=_link_or_copy, ignore=shutil.ignore_patterns(TRAINING))
    return copy


def _link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)
