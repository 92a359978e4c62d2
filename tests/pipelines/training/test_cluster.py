"""What is looked at before any worker is started: the size of the cluster, and its storage."""

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.training.cluster import Workers, check_storage, missing_resources, resources_text, wait_for_resources

AUTOSCALER = "ray._private.state.state.get_max_resources_from_cluster_config"
"""What Ray's autoscaler says it could start at most; there is none to be had in a test."""
needs_ray = pytest.mark.usefixtures("ray_local")


def test_what_is_lacking_is_the_difference_of_what_there_is_too_little_of() -> None:
    wanted = {"CPU": 5, "GPU": 2}
    assert missing_resources(wanted, {"CPU": 8, "GPU": 2.0, "memory": 1}) == {}
    assert missing_resources(wanted, {"CPU": 4.5}) == {"CPU": 0.5, "GPU": 2}
    assert resources_text(missing_resources(wanted, {"CPU": 4.5})) == "0.5 CPU, 2 GPU"
    assert missing_resources({"CPU": 0.3}, {"CPU": 0.1 + 0.2 - 1e-12}) == {}


@needs_ray
def test_a_cluster_that_is_large_enough_is_not_waited_for() -> None:
    wait_for_resources({"CPU": 4}, Workers(3, {"CPU": 1}), "--workers 3", timeout=0)


@needs_ray
def test_what_a_local_ray_lacks_it_lacks_for_ever() -> None:
    with pytest.raises(JobError, match=r"^--workers 8 need 9 CPU, but of that this cluster can never give 5 CPU\."):
        wait_for_resources({"CPU": 9}, Workers(8, {"CPU": 1}), "--workers 8", timeout=20)


@needs_ray
def test_nodes_that_may_still_come_are_waited_for_and_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(AUTOSCALER, lambda: {"CPU": 64})  # where one could still start them
    monkeypatch.setattr("time.sleep", lambda _: None)
    clock: Iterator[int] = count(0, 2)
    with caplog.at_level(logging.INFO), pytest.raises(JobError) as error:
        wait_for_resources({"CPU": 9}, Workers(8, {"CPU": 1}), "--workers 8", timeout=2, now=lambda: float(next(clock)))
    assert str(error.value) == (
        "--workers 8 need 9 CPU; after 2 minutes 5 CPU are still missing. Start more nodes, ask for fewer workers, or "
        "wait longer with --start-timeout."
    )
    waiting = [record.getMessage() for record in caplog.records]
    assert waiting[0] == "waiting for nodes: 5 CPU missing, up to 2 more minutes"
    assert 1 < len(waiting) <= 5


def test_a_worker_needs_a_node_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": count}} for count in (1, 1, 2)]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 8, "GPU": 8}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 24, "GPU": 4})
    monkeypatch.setattr("pipelines.training.cluster.max_cluster_resources", lambda: None)
    two = Workers(2, {"CPU": 1, "GPU": 2})
    assert two.unplaced() == 1
    assert Workers(4, {"CPU": 0.5, "GPU": 1}).unplaced() == 0
    assert Workers(3, {"CPU": 5}).unplaced() == 0
    assert Workers(4, {"CPU": 5}).unplaced() == 1
    clock = count(0, 2)
    with pytest.raises(JobError, match=r"; after 0 minutes nodes for 1 of 2 workers of 1 CPU, 2 GPU are still missing"):
        wait_for_resources({"CPU": 3, "GPU": 4}, two, "--workers 2", timeout=0, now=lambda: float(next(clock)))


@needs_ray
def test_an_autoscaler_says_what_it_can_ever_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AUTOSCALER, lambda: {"CPU": 64, "GPU": 8})
    with pytest.raises(JobError, match=r"can never give 2 CPU, 1 GPU\. Ask for fewer workers, or for a larger"):
        wait_for_resources({"CPU": 66, "GPU": 9}, Workers(9, {"CPU": 7, "GPU": 1}), "--workers 9", timeout=20)


@needs_ray
def test_storage_is_made_and_nothing_stays_in_it(tmp_path: Path) -> None:
    check_storage(Folder(str(tmp_path / "runs" / "one")))
    assert list((tmp_path / "runs" / "one").iterdir()) == []


@needs_ray
def test_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(JobError, match=r"--storage: .*file/one cannot be written \(.*Make room, or choose another"):
        check_storage(Folder(str(tmp_path / "file" / "one")))
