"""Two runs never write into one folder at the same time."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pack import ROOT
from patience import PATIENCE
from pipelines import lease as lease_module
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.lease import EXPIRES_SECONDS, LEASE, Lease, hold_lease, read_lease

HOLD = """
import sys, time
from pipelines.files import Folder
from pipelines.lease import hold_lease
with hold_lease(Folder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_a_second_run_is_told_who_holds_the_folder(out: Folder) -> None:
    with hold_lease(out):
        with pytest.raises(JobError, match=rf"{out.path()} is being written by process {os.getpid()} on .* since 20"):
            hold_lease(out).__enter__()
        assert out.has(LEASE)
    assert not out.has(LEASE)
    with hold_lease(out):
        pass


def test_a_run_that_was_killed_holds_nothing(out: Folder) -> None:
    words = [sys.executable, "-c", HOLD, out.uri]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(JobError, match=f"process {other.pid}"):
            hold_lease(out).__enter__()
        other.kill()
        other.wait(PATIENCE)
    with hold_lease(out):
        pass


def of_another_machine(out: Folder, age: float = 0) -> Lease:
    with hold_lease(out):
        held = read_lease(out)
    assert held
    other = replace(held, host="another", beat=time.time() - age)
    out.write(LEASE, msgspec.json.encode(other))
    return other


def test_a_run_on_another_machine_counts_until_its_heartbeat_stops(
    out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not of_another_machine(out, EXPIRES_SECONDS + 1).alive
    with hold_lease(out):
        pass
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.01)
    other, over = of_another_machine(out), threading.Event()

    def beat() -> None:
        while not over.wait(0.01):
            out.write(LEASE, msgspec.json.encode(replace(other, beat=time.time())))

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(JobError, match="on another"):
        hold_lease(out).__enter__()
    over.set()
    beating.join()
    monkeypatch.setattr(lease_module, "EXPIRES_SECONDS", 0.2)
    with hold_lease(out):  # waits until the last beat is that old
        held = read_lease(out)
    assert held
    assert held.host != "another"


def test_who_has_lost_the_folder_learns_of_it_and_leaves_it_to_the_other(
    out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.01)
    lost = threading.Event()
    with hold_lease(out, on_loss=lost.set):
        held = read_lease(out)
        assert held
        out.write(LEASE, msgspec.json.encode(replace(held, id="of another run")))
        assert lost.wait(PATIENCE)
    assert out.has(LEASE)


def test_the_heart_beats_while_the_block_runs(out: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.01)
    with hold_lease(out):
        first, end = read_lease(out), time.monotonic() + PATIENCE
        assert first
        while (later := read_lease(out)) and later.beat == first.beat and time.monotonic() < end:
            time.sleep(0.01)
        assert later
        assert later.beat > first.beat
        assert later.id == first.id


def test_a_lease_that_cannot_be_read_is_replaced(out: Folder) -> None:
    out.write(LEASE, b"{")
    with hold_lease(out):
        assert read_lease(out)
