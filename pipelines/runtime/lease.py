"""The lease of a folder of results: one run at a time writes into it."""

import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.runtime.signals import interrupt_this_process

LEASE = "lease.json"
"""File in the folder of a run, as long as the run goes on."""
BEAT_SECONDS, EXPIRES_SECONDS = 15.0, 120.0
"""Seconds between two heartbeats, and without one after which a run counts as dead."""
_SETTLING_SECONDS = {True: 0.5, False: 2.0}
"""Seconds, on a disk and elsewhere, within which a run that found the folder free has written its lease."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """Holder of a folder: the run that writes into it.

    Attributes:
        id: of the run.
        host: name of its machine, for messages.
        machine: start of its system and space of its process numbers; processes of another cannot be seen from here.
        pid, started: its process, and when that was started, in seconds since 1970.
        since, beat: when the run began, and its last heartbeat, in seconds since 1970.
    """

    id: str
    host: str
    machine: str
    pid: int
    started: float
    since: float
    beat: float

    @property
    def alive(self) -> bool | None:
        """Whether its process runs; None if that cannot be told from here."""
        if self.machine != _machine():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Else it is another process of that number, or this one before the clock was set.
            return True if abs(process.create_time() - self.started) < 1 else None
        except psutil.NoSuchProcess:
            return False


@contextmanager
def hold_lease(out: Folder, instead: str = "choose another --out") -> Iterator[threading.Event]:
    """Holds the lease of a folder while the block runs. Yields an event that is set when another run takes it over.

    A lease whose process cannot be seen from here is waited for until its next heartbeat, or until it has expired: its
    run may be dead. A run that stood still for so long is interrupted once it is taken over. Call it in the main
    thread, whose call an interrupt ends.

    Args:
        out: the folder.
        instead: what a user may do instead of waiting for the other run, for the message.

    Raises:
        JobError: another run holds it; the message says which, since when, and what to do. Or it has taken it over. Or
            it cannot be written.
    """
    dead = _wait_for_end_or_beat(out, instead)
    process, now = psutil.Process(), time.time()
    mine = Lease(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), process.create_time(), now, now)
    try:
        with _locked(out):
            other = read_lease(out)
            if other and other.id != dead:  # another run has started since this one looked
                raise _held_by(out, other, instead)
            _write(out, mine)
    except OSError as error:
        raise JobError(f"{out.path()} cannot be written ({error}). Choose another folder.") from error
    time.sleep(_SETTLING_SECONDS[out.is_local])
    other = read_lease(out)  # of several that start at the same moment, the last to write goes on
    if other and other.id != mine.id:
        raise _held_by(out, other, instead)
    heart = _Heart(out, mine)
    try:
        try:
            yield heart.lost
        finally:
            heart.stop()
    except (KeyboardInterrupt, SystemExit, JobError):
        if not heart.lost.is_set():
            raise
    if heart.lost.is_set():
        raise JobError(
            f"{out.path()} is written by another run now: this one stood still for so long that it counted as dead. "
            f"What it has done is kept, and the other goes on from there."
        )


def read_lease(out: Folder) -> Lease | None:
    """Returns the lease of a folder; None if no run holds it, or the file cannot be read."""
    try:
        return msgspec.json.decode(out.read(LEASE), type=Lease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


class _Heart:
    """A thread that renews a lease; if another run has taken it over, it interrupts this process."""

    def __init__(self, out: Folder, mine: Lease) -> None:
        self.lost = threading.Event()
        self._out, self._mine = out, mine
        self._over, self._guard = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and the lease."""
        with self._guard:
            self._over.set()
        self._thread.join()
        with suppress(OSError):
            if self._still_held():
                self._out.remove(LEASE)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(OSError):  # the next one may succeed
                if self._still_held():
                    _write(self._out, replace(self._mine, beat=time.time()))
                    continue
                with self._guard:
                    if self._over.is_set():
                        return
                    log.error("%s is written by another run now: this one ends", self._out.path())
                    self.lost.set()
                    interrupt_this_process()
                return

    def _still_held(self) -> bool:
        """Returns whether no other run has taken the lease over."""
        held = read_lease(self._out)
        return held is None or held.id == self._mine.id


def _machine() -> str:
    """Returns what is the same for all processes that see each other by their numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux: one space of numbers on a machine
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


@contextmanager
def _locked(out: Folder) -> Iterator[None]:
    """Keeps other processes of this machine, and of most network disks, out of the block. Object stores cannot."""
    if not out.is_local:
        yield
        return
    handle = os.open(out.make().path(), os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _wait_for_end_or_beat(out: Folder, instead: str) -> str:
    """Waits until nobody holds the folder, and returns the id of the dead run that is still named there, or "".

    Raises:
        JobError: a run holds it that is alive.
    """
    held = found = read_lease(out)
    if held is None or held.alive is False:
        return held.id if held else ""
    if held.alive:
        raise _held_by(out, held, instead)
    # Its machine's clock may be wrong, so that an old beat alone says nothing, and a young one not for ever.
    left = min(max(EXPIRES_SECONDS - (time.time() - held.beat), 2.5 * BEAT_SECONDS), EXPIRES_SECONDS)
    log.info("%s was written from %s: waiting up to %.0f seconds for a sign of life", out.path(), held.host, left)
    end = time.monotonic() + left
    while found is not None and time.monotonic() < end:
        if (found.id, found.beat) != (held.id, held.beat):
            raise _held_by(out, found, instead)
        time.sleep(min(1.0, BEAT_SECONDS))
        found = read_lease(out)
    return held.id


def _write(out: Folder, lease: Lease) -> None:
    out.write(LEASE, msgspec.json.encode(lease))


def _held_by(out: Folder, lease: Lease, instead: str) -> JobError:
    since = datetime.fromtimestamp(lease.since).astimezone().isoformat(" ", "seconds")
    if_dead = f" If that run is dead, start again {EXPIRES_SECONDS:g} seconds after its end."
    return JobError(
        f"{out.path()} is being written by process {lease.pid} on {lease.host}, since {since}. Wait for it to end, or "
        f"{instead}.{'' if lease.alive else if_dead}"
    )
