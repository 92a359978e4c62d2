"""The end of a job's process."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


def safe_exit() -> Callable[[int], NoReturn]:
    """Returns a `sys.exit` for a process that uses Ray; to be called before anything else is registered for the end.

    It ends the process as Python does (its threads end, registered functions run, output is flushed), but without the
    destructors of libraries in C++: threads of Ray that are still running crash on what is destroyed under them, and a
    job that has done its work would end with SIGSEGV (Ray 2.56, `opencensus::stats::DeltaProducer`).
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
