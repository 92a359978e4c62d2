"""Progress of a run: an actor that rank 0 reports to, and a monitor on the driver that shows it."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from pipelines.runtime.signals import interrupt_this_process
from pipelines.session import terminal
from pipelines.training.cluster import missing_resources, resources_text

log = logging.getLogger(__name__)

LINE_SECONDS = 15.0
"""Seconds between two progress lines, where stderr is no terminal."""
EXCUSED = 3
"""Most failures that the loss of one node may show as, until the workers go on."""
STARTING_SECONDS = 120.0
"""Seconds that workers may take to start on a free cluster."""


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Progress as rank 0 reports it."""

    step: int  # optimiser steps done
    steps: int  # of the whole run
    loss: float
    clips_per_second: float
    waiting: float  # share of the time spent waiting for data
    workers: int


class ProgressActor:
    """An actor that keeps the last report, counts failures, and keeps a request to stop. Outlives restarted workers.

    Args:
        max_failures: failures in a row, without a new checkpoint in between, after which the run is to stop.
    """

    def __init__(self, max_failures: int) -> None:
        self._latest: ProgressReport | None = None
        self._started = False
        self._stop_reason = ""
        self._max_failures = max_failures
        self._failures, self._cause = 0, ""  # since the last new checkpoint
        self._resumed, self._alive = -1, False
        self._excused = 0  # failures that do not count, as a node is taken away
        self._unheard = 0  # failures after the request to stop

    def mark_started(self) -> None:
        """Notes that a worker has started."""
        self._started = True

    def has_started(self) -> bool:
        """Returns whether any worker has started."""
        return self._started

    def note_notice(self) -> None:
        """Notes that a node will be taken away: what fails until the workers go on is its loss, and does not count.

        Ray Train itself may see the workers that wait for the lost one fail first, and takes that for a failure.
        """
        self._excused = EXCUSED

    def note_failure(self, cause: str) -> None:
        """Counts a failure of the workers, who will be started again."""
        self._unheard += bool(self._stop_reason)
        if self._excused:
            self._excused -= 1
            log.warning("a node was taken away, as announced: %s", cause)
            return
        log.warning("workers failed: %s", cause)
        self._failures, self._cause = self._failures + 1, cause
        if not self._alive:  # they failed before they could say from where they go on
            self._check_failures()
        self._alive = False

    def resume_at(self, step: int) -> str:
        """Notes that the workers go on after a step. Returns why they must not; empty if they may."""
        self._alive, self._excused = True, 0
        if step > self._resumed:
            self._resumed, self._failures = step, 0
        self._check_failures()
        return self._stop_reason

    def _check_failures(self) -> None:
        if self._failures > self._max_failures:
            self.request_stop(
                f"{self._cause}. That was failure {self._failures} without a new checkpoint in between (--max-failures "
                f"{self._max_failures})"
            )

    def report(self, latest: ProgressReport) -> None:
        """Keeps the report, in place of the one before."""
        self._latest = latest

    def request_stop(self, reason: str) -> None:
        """Asks workers that are restarted to end at once. The first reason is kept."""
        self._stop_reason = self._stop_reason or reason

    def is_unheard(self) -> bool:
        """Returns whether workers fail again and again after the request to stop: too early to see it."""
        return self._unheard > EXCUSED

    def latest(self) -> tuple[ProgressReport | None, str]:
        """Returns the last report, and the reason to stop; empty if there is none."""
        return self._latest, self._stop_reason


def create_progress_actor(max_failures: int) -> Any:
    """Starts a `ProgressActor` on this node, so that the loss of another cannot end it. Returns its handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(ProgressActor).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote(max_failures)


class ProgressMonitor:
    """A thread that shows progress while the driver waits, and ends a run that cannot go on.

    Ray Train itself waits for ever if lost nodes do not come back, or if others hold the resources. Use as
    `with ProgressMonitor(…): trainer.fit()`.

    Args:
        progress: handle of the `ProgressActor`.
        needed: resources of the smallest number of workers.
        timeout: minutes without them after which the run ends.

    Attributes:
        abort_reason: why the monitor ended the run; empty if it did not.
    """

    def __init__(self, progress: Any, needed: Mapping[str, float], timeout: float) -> None:
        self.progress, self.needed, self.timeout = progress, needed, timeout
        self.abort_reason = ""
        self._missing_since: float | None = None
        self._idle_since: float | None = time.monotonic()  # None once a worker has started
        self._last_warning = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "ProgressMonitor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def _watch(self) -> None:
        bar: tqdm | None = None
        shown, last_logged = -1, 0.0
        while not self._end.wait(1.0):
            self._check_nodes()
            try:
                latest, stopped = ray.get(self.progress.latest.remote(), timeout=10)
                if stopped and ray.get(self.progress.is_unheard.remote(), timeout=10):
                    self._abort(stopped)
                self._check_startup()
            except (RayError, TimeoutError):
                continue  # the cluster is busy or going down: `fit` reports it
            if latest is None or latest.step == shown:
                continue
            if terminal():
                bar = bar or tqdm(total=latest.steps, initial=latest.step, unit="step", dynamic_ncols=True)
                bar.set_postfix_str(_text(latest), refresh=False)
                bar.update(latest.step - bar.n)
            elif time.monotonic() - last_logged > LINE_SECONDS or latest.step == latest.steps:
                log.info("step %d of %d, %s", latest.step, latest.steps, _text(latest))
                last_logged = time.monotonic()
            shown = latest.step
        if bar is not None:
            bar.close()

    def _check_nodes(self) -> None:
        missing = missing_resources(self.needed, ray.cluster_resources())
        now = time.monotonic()
        if not missing:
            self._missing_since = None
            return
        self._idle_since = self._idle_since and now
        self._missing_since = self._missing_since or now
        left = 60 * self.timeout - (now - self._missing_since)
        if left <= 0:
            self._abort(f"{resources_text(missing)} were lost and did not come back within {self.timeout:g} minutes")
        elif now - self._last_warning > 30:
            log.warning("lost nodes: %s missing, waiting up to %.0f more minutes", resources_text(missing), left / 60)
            self._last_warning = now

    def _check_startup(self) -> None:
        if self._idle_since is None:
            return
        if ray.get(self.progress.has_started.remote(), timeout=10):
            self._idle_since = None
            return
        now = time.monotonic()
        idle, most = now - self._idle_since, max(60 * self.timeout, STARTING_SECONDS)
        if idle < STARTING_SECONDS / 2 or now - self._last_warning < 30 or not _resources_pending():
            return
        self._last_warning = now
        free = ray.available_resources()
        held = (
            f"the cluster has the {resources_text(self.needed)} they need, but others hold it: free are "
            f"{resources_text({name: free.get(name, 0) for name in self.needed})}"
        )
        if idle > most:
            self._abort(f"no worker has started for {idle / 60:.0f} minutes; {held}")
        else:
            log.warning("no worker has started; %s; waiting up to %.0f more minutes", held, (most - idle) / 60)

    def _abort(self, reason: str) -> None:
        if not self.abort_reason:
            self.abort_reason = reason
            interrupt_this_process()  # Ray Train ends a run in good order when it is interrupted.


def _resources_pending() -> bool:
    """Returns whether a group of workers waits for resources. If not, its processes are starting."""
    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def _text(latest: ProgressReport) -> str:
    left = (latest.steps - latest.step) / latest.steps if latest.steps else 0
    return (
        f"loss {latest.loss:.3f}, {latest.clips_per_second:.1f} clips/s, {latest.waiting:.0%} waiting for data, "
        f"{latest.workers} workers, {left:.0%} to go"
    )
