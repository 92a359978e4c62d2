import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.serve.thread_stream import stream_from_thread

THREADS = ThreadPoolExecutor(4)


class Counting:
    """A generator that says how far it went, and whether it was closed on its own thread."""

    def __init__(self, most: int) -> None:
        self.most, self.made, self.closed_by = most, 0, ""
        self.names: set[str] = set()

    def __call__(self) -> Iterator[int]:
        try:
            for number in range(self.most):
                self.names.add(threading.current_thread().name)
                self.made = number + 1
                yield number
        finally:
            self.closed_by = threading.current_thread().name


def test_items_arrive_in_order_from_one_other_thread() -> None:
    source = Counting(50)

    async def read() -> list[int]:
        return [item async for item in stream_from_thread(source, THREADS, 60)]

    assert asyncio.run(read()) == list(range(50))
    assert source.names == {source.closed_by} != {threading.current_thread().name}


def test_a_generator_is_closed_soon_after_its_reader_leaves() -> None:
    source = Counting(10**6)

    async def read_some() -> None:
        stream = stream_from_thread(source, THREADS, 60)
        async for item in stream:
            if item == 5:
                break
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    asyncio.run(read_some())
    assert source.closed_by
    assert source.made < 15


def test_a_reader_that_is_cancelled_closes_it_too() -> None:
    source = Counting(10**6)

    async def cancelled() -> None:
        async def read() -> None:
            async for _ in stream_from_thread(source, THREADS, 60):
                await asyncio.sleep(0.01)

        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(1000):
            if source.closed_by:
                break
            await asyncio.sleep(0.01)

    asyncio.run(cancelled())
    assert source.closed_by


def test_a_reader_that_takes_nothing_ends_it() -> None:
    source = Counting(10**6)

    async def sleep() -> None:
        stream = stream_from_thread(source, THREADS, 0.05)
        await anext(stream)
        while not source.closed_by:
            await asyncio.sleep(0.01)
        await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    asyncio.run(sleep())
    assert source.made < 10


def test_an_error_arrives_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    got: list[int] = []

    async def read() -> None:
        async for item in stream_from_thread(broken, THREADS, 60):
            got.append(item)

    with pytest.raises(ValueError, match="no more"):
        asyncio.run(read())
    assert got == [1]
