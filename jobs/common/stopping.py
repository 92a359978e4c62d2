"""The end of a job: by itself, by a signal, or with its Ray; one sentence, an exit code, and an end within seconds."""

import atexit
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from pipelines.errors import Exit
from pipelines.runtime.signals import was_own_interrupt

GRACE = 25.0
"""Seconds from a signal until the process ends by force; Kubernetes gives 30."""
_AT_ONCE = 0.5
"""Seconds within which a second signal counts as the first: a terminal and a wrapper may both send it."""
_LOOKS = 10
"""Looks for Ray's process on this node, once Ray runs: it may not be found at once, or be hidden by the system."""
_STREAM = "StreamingExecutor"
"""How the names of the threads of Ray Data's streams begin. They are of a class of Ray's own, with a `shutdown`."""
_STREAM_END = 5.0
"""Seconds that streams have for their end: less than `GRACE`."""
_CODES = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}
_KEPT = "what is finished is kept, and the same command goes on from there"
_KILLED = f"error: this job, or its Ray on this machine, was killed: {_KEPT}"
_WITNESS = """trap '' INT TERM; read -r _ || printf '%s\\n' "$1" >&2"""
"""A program of the shell: waits for a line on its standard input, and says its argument if that ends without one."""


class Stopped(KeyboardInterrupt):
    """Raised in the main thread, wherever it is, by the first signal that ends the job."""


class Stop:
    """Watches for SIGINT (Ctrl-C), SIGTERM and the end of Ray, in the process of one job; made in its main thread.

    The first signal raises `Stopped` in the main thread. If the process still runs `GRACE` seconds later, because a
    call of C does not return or a server does not answer, or if a second signal comes, the process ends at once. It
    does so, too, when Ray's process on this node has died.
    """

    def __init__(self) -> None:
        self._exit = safe_exit()
        self._witness: subprocess.Popen[bytes] | None = None
        atexit.register(self._dismiss_witness)
        self._guard = threading.Lock()
        self._first: tuple[signal.Signals, float] | None = None  # and when it came
        self._raised = self._again = False
        self._arrivals, arrive = os.pipe()
        for end in (self._arrivals, arrive):
            os.set_blocking(end, False)
        # Written to at once, also while the main thread is in a call of C, where its handlers have to wait.
        signal.set_wakeup_fd(arrive, warn_on_full_buffer=False)
        for number in _CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as in a job that a shell runs in the background
                signal.signal(number, self._raise)
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def code(self) -> Exit | None:
        """The exit code of a job that a signal ends; None if no signal has come."""
        self._take()
        return _CODES[self._first[0]] if self._first else None

    @property
    def sentence(self) -> str:
        """Sentence on the end by a signal."""
        return f"stopped by {'Ctrl-C' if self.code == Exit.INTERRUPTED else 'SIGTERM'}: {_KEPT}"

    def call_witness(self) -> None:
        """Starts a process, a shell of 1 MB, that says that the job was killed if it ends without a word of its own.

        It cannot say so itself: Ray ends a driver at once, in C++, that finds its object store gone.
        """
        with suppress(OSError):  # no shell, no witness
            self._witness = subprocess.Popen(
                ["sh", "-c", _WITNESS, "sh", _KILLED], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )

    def leave_ray(self) -> None:
        """Ends the connection to Ray, so that what the job says next is its last word.

        Workers' lines arrive before; what Ray logs of threads that are cut short is left out.
        """
        self._raised = True
        logging.disable()
        if _ray_runs():
            end_streams()
            with suppress(Exception):  # it may be half started, or have lost its cluster
                sys.modules["ray"].shutdown()

    def leave(self, code: int) -> NoReturn:
        """Ends the process with an exit code, see `safe_exit`; meanwhile, a first signal raises nothing."""
        self._raised = True
        self._dismiss_witness()
        self._exit(code)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            return
        self._raised = True
        of_ray_train = signal.getsignal(signal.SIGINT)
        if callable(of_ray_train) and of_ray_train not in (self._raise, signal.default_int_handler):
            of_ray_train(signal.SIGINT, frame)  # ends the workers: what is said of their last checkpoint stays true
        raise Stopped(signal.Signals(number).name)

    def _take(self) -> None:
        """Notes the signals that have arrived; those that this process has sent to itself are none."""
        with self._guard:
            try:
                arrived = os.read(self._arrivals, 4096)
            except BlockingIOError:
                return
            for number in arrived:
                if number not in _CODES or (number == signal.SIGINT and was_own_interrupt()):
                    continue
                if self._first is None:
                    self._first = signal.Signals(number), time.monotonic()
                elif time.monotonic() - self._first[1] > _AT_ONCE:
                    self._again = True

    def _watch(self) -> None:
        raylets: list[int] = []  # none, or one
        looks = 0
        while True:
            seconds = 1.0 if raylets or looks == _LOOKS else 0.1
            ready, _, _ = select.select([self._arrivals, *raylets], [], [], seconds)
            self._take()
            if self._first and (self._again or time.monotonic() - self._first[1] > GRACE):
                self._end()
            runs = _ray_runs()
            if raylets and raylets[0] in ready:
                if runs:
                    self._end()
                os.close(raylets.pop())  # it was ended in order
            if not runs:
                looks = 0
            elif not raylets and looks < _LOOKS:
                raylets, looks = _raylets(), looks + 1

    def _end(self) -> NoReturn:
        """Ends the process at once. If it was no signal, the witness speaks: it would, too, if Ray were faster."""
        if self.code:
            self._dismiss_witness()
            os.write(2, f"{self.sentence}\n".encode())
        os._exit(self.code or Exit.FAILED)

    def _dismiss_witness(self) -> None:
        """Ends the witness: the job speaks for itself."""
        if self._witness is not None and self._witness.stdin is not None:
            with suppress(OSError, ValueError):  # somebody killed it
                os.write(self._witness.stdin.fileno(), b"\n")


def end_streams() -> None:
    """Ends the streams of Ray Data that run in this process, each in a thread.

    Such a thread that calls Ray after its end would end the process, in C++, with an exit code of Ray's.
    """
    end = time.monotonic() + _STREAM_END
    for thread in threading.enumerate():
        while thread.name.startswith(_STREAM) and thread.is_alive() and time.monotonic() < end:
            with suppress(Exception):  # it may have lost its cluster
                thread.shutdown(force=True)  # pyright: ignore[reportAttributeAccessIssue]
            thread.join(0.1)  # and again: one that has just started does not listen yet


def safe_exit() -> Callable[[int], NoReturn]:
    """Returns a `sys.exit` for a process that uses Ray. Call this first: it leaves out what was registered before.

    It ends the process as Python does: threads end, functions registered with `atexit` since this call run (Ray
    registers its own on import), output is flushed. Only the destructors of libraries in C++ are left out. Threads of
    Ray still run then and crash on what is destroyed under them, so that a job that has done its work would end with
    SIGSEGV (Ray 2.60, `opencensus::stats::DeltaProducer`).
    """
    codes: list[int] = []

    def end() -> None:
        if codes:  # else by an error that nobody expected, of which Python speaks
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):  # whoever read it has gone
                    stream.flush()
            os._exit(codes[0])

    def leave(code: int) -> NoReturn:
        codes.append(code)
        sys.exit(code)

    atexit.register(end)  # what is registered first runs last
    return leave


def _ray_runs() -> bool:
    """Returns whether this process is connected to a Ray. Imports none, as that takes a second."""
    running = getattr(sys.modules.get("ray"), "is_initialized", None)  # of a module that may be half imported
    return running is not None and running()


def _raylets() -> list[int]:
    """Returns a file descriptor that becomes readable when Ray's process on this node ends; none on other systems."""
    import psutil
    import ray

    try:
        here = f"--node_id={ray.get_runtime_context().get_node_id()}"
    except Exception:  # Ray has ended meanwhile, of which each version speaks in its own way
        return []
    processes = psutil.process_iter(["name", "cmdline"]) if sys.platform == "linux" else ()
    found = (one.pid for one in processes if one.info["name"] == "raylet" and here in (one.info["cmdline"] or ()))
    try:
        return [os.pidfd_open(pid) for pid in found]
    except (AttributeError, OSError):  # a Python or a system that lacks it, or Ray has ended meanwhile
        return []
