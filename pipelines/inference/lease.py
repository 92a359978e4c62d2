"""The lease of a folder of results: one run at a time writes into it."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import psutil

from pipelines.errors import JobError
from pipelines.files import Folder

LEASE = "lease.json"
"""File in the folder of a run, as long as the run goes on."""
BEAT_SECONDS, EXPIRES_SECONDS = 15.0, 90.0
"""Seconds between two heartbeats, and without one after which a run counts as dead."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Holder of a folder: the run that writes into it.

    Attributes:
        id: of the run.
        host, pid, started: its process, and when that was started, in seconds since 1970.
        since, beat: when the run began, and its last heartbeat, in seconds since 1970.
    """

    id: str
    host: str
    pid: int
    started: float
    since: float
    beat: float

    @property
    def alive(self) -> bool:
        """Whether the run may still write: its process runs, as far as this machine can tell."""
        if self.host != socket.gethostname():
            return time.time() - self.beat < EXPIRES_SECONDS
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.NoSuchProcess:
            return False


@contextmanager
def hold_lease(out: Folder) -> Iterator[None]:
    """Holds the lease of a folder while the block runs.

    Raises:
        JobError: another run holds it; the message says which, since when, and what to do. Or it cannot be written.
    """
    held = read_lease(out)
    if held and held.alive:
        raise _held_by(out, held)
    process, now = psutil.Process(), time.time()
    mine = Lease(uuid.uuid4().hex, socket.gethostname(), os.getpid(), process.create_time(), now, now)
    try:
        _write(out, mine)
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Choose another folder.") from error
    other = read_lease(out)  # of two that start at the same moment, the last to write goes on
    if other and other.id != mine.id:
        raise _held_by(out, other)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(out, mine, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with suppress(OSError):
            out.remove(LEASE)


def read_lease(out: Folder) -> Lease | None:
    """Returns the lease of a folder; None if no run holds it, or the file cannot be read."""
    try:
        return msgspec.json.decode(out.read(LEASE), type=Lease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _beat(out: Folder, mine: Lease, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        with suppress(OSError):  # the next one may succeed
            _write(out, replace(mine, beat=time.time()))


def _write(out: Folder, lease: Lease) -> None:
    out.write(LEASE, msgspec.json.encode(lease))


def _held_by(out: Folder, lease: Lease) -> JobError:
    since = datetime.fromtimestamp(lease.since).astimezone().isoformat(" ", "seconds")
    return JobError(
        f"{out.path()} is being written by process {lease.pid} on {lease.host}, since {since}. Wait for it to end, or "
        f"choose another --out. If that run is dead, start again {EXPIRES_SECONDS:g} seconds after its end."
    )
