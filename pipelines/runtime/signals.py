"""Signals of the process that a job runs in: who sent an interrupt, and whose handlers they meet."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_guard, _own = threading.Lock(), [0]


def interrupt_this_process() -> None:
    """Sends SIGINT to this process, to end what its main thread waits for; `was_own_interrupt` tells it from others."""
    with _guard:
        _own[0] += 1
    os.kill(os.getpid(), signal.SIGINT)


def was_own_interrupt() -> bool:
    """Returns whether a SIGINT that has arrived was sent by `interrupt_this_process`; each of these counts once."""
    with _guard:
        own = _own[0] > 0
        _own[0] -= own
    return own


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Keeps the handler of SIGTERM through a block that starts Ray.

    Ray replaces it twice: in Python, and in C++ by one that prints a stack trace and aborts.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
