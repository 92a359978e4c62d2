"""Answers from generators that block: each runs on a thread, and stops when the client leaves."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 2
"""Items that wait to be sent."""


async def stream_from_thread(make: Callable[[], Iterator[T]], threads: Executor, patience: float) -> AsyncIterator[T]:
    """Yields the items of a generator that is made, run and closed on one thread.

    If this is closed before its end, the generator is closed when it has made its next item, and this returns then.

    Args:
        make: returns the generator.
        threads: one of which the generator takes until its end.
        patience: seconds to wait until an item is taken; the generator is closed then.

    Raises:
        TimeoutError: an item was not taken in time.
        Exception: what the generator raises.
    """
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[str, T | BaseException | None]] = asyncio.Queue(_AHEAD)
    left = threading.Event()

    def put(kind: str, value: T | BaseException | None = None) -> None:
        placed = asyncio.run_coroutine_threadsafe(items.put((kind, value)), loop)
        try:
            placed.result(patience)
        except (TimeoutError, CancelledError):
            placed.cancel()
            left.set()
            raise TimeoutError(f"The client has read nothing for {patience:g} s.") from None

    def run() -> None:
        iterator = make()
        try:
            for item in iterator:
                if left.is_set():
                    return
                put("item", item)
            put("end")
        except BaseException as error:
            if not left.is_set():
                with suppress(TimeoutError):
                    put("error", error)
        finally:
            close = getattr(iterator, "close", None)
            if close:
                close()

    thread = loop.run_in_executor(threads, run)
    try:
        while True:
            kind, value = await items.get()
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            if kind == "end":
                return
            yield value  # pyright: ignore[reportReturnType]
    finally:
        left.set()
        while not thread.done():
            while not items.empty():
                items.get_nowait()
            await asyncio.wait([thread], timeout=0.05)
