"""Two runs never write into one folder at the same time."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pack import ROOT
from patience import PATIENCE
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.inference import lease as lease_module
from pipelines.inference.lease import EXPIRES_SECONDS, LEASE, hold_lease, read_lease

HOLD = """
import sys, time
from pipelines.files import Folder
from pipelines.inference.lease import hold_lease
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


def test_a_run_on_another_machine_counts_until_its_heartbeat_stops(out: Folder) -> None:
    with hold_lease(out):
        held = read_lease(out)
    assert held
    for age, alive in ((0, True), (EXPIRES_SECONDS + 1, False)):
        other = replace(held, host="another", beat=time.time() - age)
        assert other.alive == alive
        out.write(LEASE, msgspec.json.encode(other))
        if alive:
            with pytest.raises(JobError, match="on another"):
                hold_lease(out).__enter__()
    with hold_lease(out):
        pass


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
