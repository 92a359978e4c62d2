"""What the driver says of a run whose workers do not start, and when it gives up."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.util import placement_group, remove_placement_group

from patience import PATIENCE
from pipelines.training import progress as _progress
from pipelines.training.progress import ProgressMonitor, create_progress_actor

HELD = "no worker has started; the cluster has the 3 CPU they need, but others hold it: free are 1 CPU; waiting up to"


@pytest.fixture
def other() -> Iterator[None]:
    """Somebody who holds most of the cluster."""
    held = placement_group([{"CPU": 3}])
    assert held.wait(30)
    end = time.monotonic() + PATIENCE
    while ray.available_resources().get("CPU") != 1:  # the view of it is a little late
        assert time.monotonic() < end
        time.sleep(0.1)
    yield
    remove_placement_group(held)


@pytest.fixture
def progress() -> Any:
    """The actor, once it answers: the monitor asks again after 10 s, and a busy machine may take longer to start it."""
    actor = create_progress_actor()
    ray.get(actor.latest.remote(), timeout=PATIENCE)
    return actor


@pytest.fixture
def waiting() -> Iterator[None]:
    """Workers as Ray Train asks for them."""
    workers = placement_group([{"CPU": 1}] * 2)
    assert not workers.wait(1)
    yield
    remove_placement_group(workers)


@pytest.mark.usefixtures("ray_local", "other", "waiting")
def test_what_others_hold_is_said_and_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, progress: Any
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    monitor = ProgressMonitor(progress, {"CPU": 3}, timeout=0)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        monitor._idle_since = started - 0.6 * _progress.STARTING_SECONDS
        monitor._check_startup()
        assert HELD in caplog.text
        assert not monitor.abort_reason
        monitor._last_warning, monitor._idle_since = 0.0, started - 1.1 * _progress.STARTING_SECONDS
        monitor._check_startup()
    assert "no worker has started for 2 minutes; the cluster has the 3 CPU" in monitor.abort_reason
    assert sent == [signal.SIGINT]


@pytest.mark.usefixtures("ray_local", "other")
@pytest.mark.parametrize("begun", [True, False])
def test_nothing_is_said_of_workers_that_have_begun_or_have_their_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, progress: Any, begun: bool
) -> None:
    monkeypatch.setattr(_progress, "STARTING_SECONDS", 0.0)
    if begun:
        ray.get(progress.mark_started.remote())
    monitor = ProgressMonitor(progress, {"CPU": 3}, timeout=0)
    monitor._check_startup()
    assert (monitor.abort_reason, caplog.text) == ("", "")
