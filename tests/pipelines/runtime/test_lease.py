"""Two runs never write into one folder at the same time."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from pack import ROOT
from patience import PATIENCE
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.runtime import lease as lease_module
from pipelines.runtime.lease import EXPIRES_SECONDS, LEASE, Lease, hold_lease, read_lease
from s3_server import S3Server

HOLD = """
import sys, time
from pipelines.files import Folder
from pipelines.runtime.lease import hold_lease
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


def of_another_machine(out: Folder, age: float = 0, **changes: Any) -> Lease:
    with hold_lease(out):
        held = read_lease(out)
    assert held
    other = replace(held, **{"host": "another", "machine": "another", "beat": time.time() - age, **changes})
    out.write(LEASE, msgspec.json.encode(other))
    return other


@contextmanager
def beating(out: Folder, lease: Lease, clock: float = 0) -> Iterator[None]:
    """The heartbeat of another machine, whose clock is so many seconds off."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.01):
            out.write(LEASE, msgspec.json.encode(replace(lease, beat=time.time() + clock)))

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.parametrize("clock", [0, -10 * EXPIRES_SECONDS, 10 * EXPIRES_SECONDS])
def test_a_run_on_another_machine_counts_until_its_heartbeat_stops_whatever_its_clock_says(
    out: Folder, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    other = of_another_machine(out, -clock)
    assert other.alive is None
    with beating(out, other, clock), pytest.raises(JobError, match=r"on another, since .* If that run is dead, start"):
        hold_lease(out).__enter__()
    monkeypatch.setattr(lease_module, "EXPIRES_SECONDS", 0.3)
    with hold_lease(out):  # waits until the last beat is that old
        held = read_lease(out)
    assert held
    assert held.host != "another"


def test_a_process_that_cannot_be_seen_from_here_is_not_taken_for_dead(
    out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another container of this machine, or whose start seems to be another as the clock was set."""
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    for changes in (
        {"host": socket.gethostname(), "pid": 2**22 + 1},
        {"machine": lease_module._machine(), "started": 1},
    ):
        other = of_another_machine(out, **changes)
        with beating(out, other), pytest.raises(JobError, match="is being written by process"):
            hold_lease(out).__enter__()
        out.remove(LEASE)


@pytest.mark.parametrize("dead", [False, True])
def test_of_two_that_start_at_the_same_moment_one_goes_on(out: Folder, dead: bool) -> None:
    """However long one of them takes from seeing that nobody holds the folder to writing that it does."""
    if dead:
        of_another_machine(out, machine=lease_module._machine(), pid=2**22 + 1)
    looked = threading.Barrier(2)

    class Slow(Folder):
        """Both have looked before one of them goes on, and the second to write has stood still for long."""

        writing: ClassVar[list[int]] = []
        reads = 0

        def read(self, name: str) -> bytes:
            self.reads += 1
            try:
                return super().read(name)
            finally:
                if self.reads == 1:
                    looked.wait(PATIENCE)

        def write(self, name: str, data: bytes) -> None:
            self.writing.append(1)
            time.sleep(2 * lease_module._SETTLING_SECONDS[True] * (len(self.writing) - 1))
            super().write(name, data)

    assert sorted(both_start(lambda: Slow(out.uri))) == ["held", "refused"]


def test_of_two_that_start_at_the_same_moment_where_nothing_can_be_locked_the_last_goes_on(
    out: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_SETTLING_SECONDS", {True: 5.0})
    monkeypatch.setattr(fcntl, "flock", unsupported)
    looked = threading.Barrier(2)

    class Late(Folder):
        """Both have seen that nobody holds the folder before one of them writes."""

        def write(self, name: str, data: bytes) -> None:
            looked.wait(PATIENCE)
            super().write(name, data)

    assert sorted(both_start(lambda: Late(out.uri))) == ["held", "refused"]


def both_start(folder: Callable[[], Folder]) -> list[str]:
    """What becomes of two runs in one folder; one that holds it does so until the other has come to its end."""
    ends: list[str] = []
    both = threading.Barrier(2)

    def start() -> None:
        try:
            with hold_lease(folder()):
                ends.append("held")
                both.wait(PATIENCE)
        except JobError as error:
            ends.append("refused" if "is being written by process" in str(error) else str(error))
            both.wait(PATIENCE)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def unsupported(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.slow
def test_a_folder_in_an_object_store_has_one_writer_too(s3_server: S3Server) -> None:
    out = Folder(s3_server.uri("lease"))
    with hold_lease(out), pytest.raises(JobError, match="is being written by process"):
        hold_lease(out).__enter__()
    assert not out.has(LEASE)


LOSE = """
import sys, time
from pipelines.runtime import lease
from pipelines.errors import JobError
from pipelines.files import Folder
lease.BEAT_SECONDS = 0.05
try:
    with lease.hold_lease(Folder(sys.argv[1])) as lost:
        print("held", flush=True)
        time.sleep(1000)
except JobError as error:
    print(lost.is_set(), error)
"""


def test_who_has_lost_the_folder_ends_and_leaves_it_to_the_other(out: Folder) -> None:
    words = [sys.executable, "-c", LOSE, out.uri]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT, text=True) as loser:
        assert loser.stdout
        assert loser.stdout.readline() == "held\n"
        held = read_lease(out)
        assert held
        out.write(LEASE, msgspec.json.encode(replace(held, id="of another run")))
        assert loser.wait(PATIENCE) == 0
        assert loser.stdout.read().startswith(f"True {out.path()} is written by another run now: this one stood still")
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
