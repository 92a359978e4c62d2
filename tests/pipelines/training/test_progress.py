"""What the driver says of a run whose workers do not start, and when it gives up."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.util import placement_group, remove_placement_group

from patience import PATIENCE
from pipelines.training import progress as _progress
from pipelines.training.failures import FailureNotes
from pipelines.training.progress import EXCUSED, ProgressActor, ProgressMonitor, create_progress_actor

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
    actor = create_progress_actor(3)
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


def test_only_failures_without_a_new_checkpoint_in_between_are_counted() -> None:
    actor = ProgressActor(max_failures=2)
    step = 0
    assert not actor.resume_at(step)
    for _ in range(9):  # a machine that fails now and then
        actor.note_failure("RuntimeError: now and then")
        step += 4
        assert not actor.resume_at(step)
    for _ in range(2):
        actor.note_failure("RuntimeError: the same again")
        assert not actor.resume_at(step)
    actor.note_failure("RuntimeError: the same again")
    assert "the same again. That was failure 3 without a new checkpoint in between (--max-failures 2)" in (
        actor.resume_at(step)
    )


def test_the_loss_of_a_node_that_was_announced_does_not_count() -> None:
    actor = ProgressActor(max_failures=0)
    assert not actor.resume_at(0)
    for step in (0, 5):
        actor.note_notice()
        for _ in range(2):  # one loss, seen by the worker that waits for the other, and then by Ray
            actor.note_failure("RuntimeError: connection closed by peer")
        assert not actor.resume_at(step)
    actor.note_failure("RuntimeError: not announced")
    assert "not announced. That was failure 1" in actor.latest()[1] + actor.resume_at(5)


@pytest.mark.usefixtures("ray_local")
def test_the_loss_of_an_actor_on_a_node_that_was_announced_is_no_failure() -> None:
    actor = create_progress_actor(0)
    lost = [WorkerHealthCheckFailedError("lost", RayActorError(preempted=preempted)) for preempted in (True, False)]
    for error, reason in zip(lost, ("", "That was failure 1"), strict=True):
        FailureNotes(actor).after_exception(None, {0: ConnectionError("closed by peer"), 1: error})
        assert reason in ray.get(actor.latest.remote())[1]
        assert bool(ray.get(actor.latest.remote())[1]) == bool(reason)


def test_a_node_that_was_announced_excuses_no_endless_failures() -> None:
    actor = ProgressActor(max_failures=1)
    actor.note_notice()
    for _ in range(EXCUSED + 1):
        assert not actor.latest()[1]
        actor.note_failure("ImportError: no module")
    actor.note_failure("ImportError: no module")
    assert actor.latest()[1].startswith("ImportError: no module. That was failure 2")


def test_who_fails_before_he_can_see_the_request_to_stop_does_not_hear_it() -> None:
    actor = ProgressActor(max_failures=1)
    for _ in range(2):
        assert not actor.latest()[1]
        actor.note_failure("ImportError: no module")
    assert actor.latest()[1].startswith("ImportError: no module. That was failure 2")
    for _ in range(EXCUSED):  # a stop may come with failures of its own
        actor.note_failure("ImportError: no module")
        assert not actor.is_unheard()
    actor.note_failure("ImportError: no module")
    assert actor.is_unheard()


@pytest.mark.usefixtures("ray_local")
def test_a_run_whose_workers_never_come_to_their_first_line_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    actor = create_progress_actor(0)
    with ProgressMonitor(actor, {}, timeout=1) as monitor:
        for _ in range(EXCUSED + 2):
            assert not sent
            ray.get(actor.note_failure.remote("ImportError: no module"))
        end = time.monotonic() + PATIENCE
        while not sent:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert monitor.abort_reason.startswith("ImportError: no module. That was failure 1")
    assert sent == [signal.SIGINT]
