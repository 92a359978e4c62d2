"""The lease of a folder of results: one run at a time writes into it."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import psutil

from pipelines.errors import JobError
from pipelines.files import Folder

LEASE = "lease.json"
"""File in the folder of a run, as long as the run goes on."""
BEAT_SECONDS, EXPIRES_SECONDS = 15.0, 120.0
"""Seconds between two heartbeats, and without one after which a run counts as dead."""

log = logging.getLogger(__name__)


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
def hold_lease(
    out: Folder, instead: str = "choose another --out", on_loss: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds the lease of a folder while the block runs.

    A lease from another machine is waited for until its next heartbeat, or until it has expired: its run may be dead.

    Args:
        out: the folder.
        instead: what a user may do instead of waiting for the other run, for the message.
        on_loss: called, in a thread, if another run took the lease over: this process stood still for long.

    Raises:
        JobError: another run holds it; the message says which, since when, and what to do. Or it cannot be written.
    """
    _wait_for_end_or_beat(out, instead)
    process, now = psutil.Process(), time.time()
    mine = Lease(uuid.uuid4().hex, socket.gethostname(), os.getpid(), process.create_time(), now, now)
    try:
        _write(out, mine)
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Choose another folder.") from error
    other = read_lease(out)  # of two that start at the same moment, the last to write goes on
    if other and other.id != mine.id:
        raise _held_by(out, other, instead)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(out, mine, over, on_loss), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with suppress(OSError):
            if _still_held(out, mine):
                out.remove(LEASE)


def read_lease(out: Folder) -> Lease | None:
    """Returns the lease of a folder; None if no run holds it, or the file cannot be read."""
    try:
        return msgspec.json.decode(out.read(LEASE), type=Lease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _wait_for_end_or_beat(out: Folder, instead: str) -> None:
    """Returns once nobody holds the folder.

    Raises:
        JobError: a run holds it that is alive.
    """
    held = found = read_lease(out)
    end = time.monotonic() + EXPIRES_SECONDS  # the other machine's clock may be ahead
    while found and found.alive and time.monotonic() < end:
        here = found.host == socket.gethostname()
        if here or held is None or (found.id, found.beat) != (held.id, held.beat):
            raise _held_by(out, found, instead)
        left = EXPIRES_SECONDS - (time.time() - found.beat)
        if found is held:
            log.info("%s was written from %s: waiting %.0f seconds for a sign of life", out.path(), held.host, left)
        time.sleep(min(1.0, BEAT_SECONDS))
        found = read_lease(out)


def _beat(out: Folder, mine: Lease, over: threading.Event, on_loss: Callable[[], None]) -> None:
    while not over.wait(BEAT_SECONDS):
        with suppress(OSError):  # the next one may succeed
            if not _still_held(out, mine):
                log.error("%s is written by another run now: this one ends", out.path())
                on_loss()
                return
            _write(out, replace(mine, beat=time.time()))


def _still_held(out: Folder, mine: Lease) -> bool:
    """Returns whether no other run has taken the lease over."""
    held = read_lease(out)
    return held is None or held.id == mine.id


def _write(out: Folder, lease: Lease) -> None:
    out.write(LEASE, msgspec.json.encode(lease))


def _held_by(out: Folder, lease: Lease, instead: str) -> JobError:
    since = datetime.fromtimestamp(lease.since).astimezone().isoformat(" ", "seconds")
    if_dead = f" If that run is dead, start again {EXPIRES_SECONDS:g} seconds after its end."
    return JobError(
        f"{out.path()} is being written by process {lease.pid} on {lease.host}, since {since}. Wait for it to end, or "
        f"{instead}.{if_dead if lease.host != socket.gethostname() else ''}"
    )
