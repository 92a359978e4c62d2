"""The end of a job's process."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


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
