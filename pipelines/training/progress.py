"""What the driver hears of a run in progress: a small actor that rank 0 tells, and the bar or lines made of it."""

import logging
import os
import signal
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

from pipelines.session import terminal
from pipelines.training.cluster import missing_resources, resources_text

log = logging.getLogger(__name__)

LINE_SECONDS = 15.0
"""Between two lines where no terminal shows a bar."""
STARTING_SECONDS = 120.0
"""That workers may take to start where nobody is in their way."""


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """One word from rank 0."""

    step: int  # optimiser steps done
    steps: int  # of the whole run
    loss: float
    clips_per_second: float
    waiting: float  # share of the time spent waiting for data
    workers: int


class ProgressActor:
    """The actor. Outlives workers that are restarted."""

    def __init__(self) -> None:
        self.beat: ProgressReport | None = None
        self.begun = False
        self.stopped = ""

    def begin(self) -> None:
        self.begun = True

    def has_begun(self) -> bool:
        return self.begun

    def tell(self, beat: ProgressReport) -> None:
        self.beat = beat

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def heard(self) -> tuple[ProgressReport | None, str]:
        return self.beat, self.stopped


def create_progress_actor() -> Any:
    """The actor's handle, to be sent to the workers. It lives where this process does: no other node takes it along."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(ProgressActor).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote()


class ProgressMonitor:
    """Shows progress while the driver waits, in a thread of its own; ends the run if lost nodes do not come back, or if
    others hold what it needs.

    Use as `with ProgressMonitor(…): trainer.fit()`. Ray Train itself would wait for ever; `abort_reason` says why not.
    """

    def __init__(self, ear: Any, wanted: Mapping[str, float], timeout: float) -> None:
        """`wanted`: resources of the smallest number of workers; `timeout`: minutes without them."""
        self.ear, self.wanted, self.timeout = ear, wanted, timeout
        self.abort_reason = ""
        self._lacking_since: float | None = None
        self._idle_since: float | None = time.monotonic()  # None once a worker has started
        self._said = 0.0
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
        shown, said_at = -1, 0.0
        while not self._end.wait(1.0):
            self._look_at_cluster()
            try:
                beat, _ = ray.get(self.ear.heard.remote(), timeout=10)
                self._look_at_start()
            except (RayError, TimeoutError):
                continue  # the cluster is busy or going down: whoever waits for it says so
            if beat is None or beat.step == shown:
                continue
            if terminal():
                bar = bar or tqdm(total=beat.steps, initial=beat.step, unit="step", dynamic_ncols=True)
                bar.set_postfix_str(_text(beat), refresh=False)
                bar.update(beat.step - bar.n)
            elif time.monotonic() - said_at > LINE_SECONDS or beat.step == beat.steps:
                log.info("step %d of %d, %s", beat.step, beat.steps, _text(beat))
                said_at = time.monotonic()
            shown = beat.step
        if bar is not None:
            bar.close()

    def _look_at_cluster(self) -> None:
        missing = missing_resources(self.wanted, ray.cluster_resources())
        now = time.monotonic()
        if not missing:
            self._lacking_since = None
            return
        self._idle_since = self._idle_since and now
        self._lacking_since = self._lacking_since or now
        left = 60 * self.timeout - (now - self._lacking_since)
        if left <= 0:
            self._give_up(f"{resources_text(missing)} were lost and did not come back within {self.timeout:g} minutes")
        elif now - self._said > 30:
            log.warning("lost nodes: %s missing, waiting up to %.0f more minutes", resources_text(missing), left / 60)
            self._said = now

    def _look_at_start(self) -> None:
        if self._idle_since is None:
            return
        if ray.get(self.ear.has_begun.remote(), timeout=10):
            self._idle_since = None
            return
        now = time.monotonic()
        idle, most = now - self._idle_since, max(60 * self.timeout, STARTING_SECONDS)
        if idle < STARTING_SECONDS / 2 or now - self._said < 30 or not _some_wait_for_a_place():
            return
        self._said = now
        free = ray.available_resources()
        held = (
            f"the cluster has the {resources_text(self.wanted)} they need, but others hold it: free are "
            f"{resources_text({name: free.get(name, 0) for name in self.wanted})}"
        )
        if idle > most:
            self._give_up(f"no worker has started for {idle / 60:.0f} minutes; {held}")
        else:
            log.warning("no worker has started; %s; waiting up to %.0f more minutes", held, (most - idle) / 60)

    def _give_up(self, reason: str) -> None:
        if not self.abort_reason:
            self.abort_reason = reason
            os.kill(os.getpid(), signal.SIGINT)  # Ray Train ends a run in good order when it is interrupted.


def _some_wait_for_a_place() -> bool:
    """Whether a group of workers waits for its resources: else they are there, and the workers on their way."""
    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def _text(beat: ProgressReport) -> str:
    left = (beat.steps - beat.step) / beat.steps if beat.steps else 0
    return (
        f"loss {beat.loss:.3f}, {beat.clips_per_second:.1f} clips/s, {beat.waiting:.0%} waiting for data, "
        f"{beat.workers} workers, {left:.0%} to go"
    )
