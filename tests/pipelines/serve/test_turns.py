import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pipelines.serve.refusal import Refusal
from pipelines.serve.turns import Rate, Turns


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Runs a test in an event loop of its own."""
    asyncio.run(asyncio.wait_for(test(), 60))  # pyright: ignore[reportArgumentType]


def test_as_many_requests_run_as_may_and_the_next_one_comes_when_one_ends() -> None:
    async def test() -> None:
        turns = Turns(running=1, waiting=1, patience=60)
        order: list[str] = []

        async def request(name: str, held: asyncio.Event) -> None:
            async with turns.turn():
                order.append(name)
                await held.wait()

        first, second = asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(request("first", first))
        await asyncio.sleep(0)
        other = asyncio.create_task(request("second", second))
        await asyncio.sleep(0)
        assert (turns.running, turns.waiting, order) == (1, 1, ["first"])
        with pytest.raises(Refusal, match="1 requests are being answered and 1 wait") as refused:
            async with turns.turn():
                pass
        assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "5"})
        first.set()
        await one
        second.set()
        await other
        assert (turns.running, turns.waiting, order) == (0, 0, ["first", "second"])

    run(test)


def test_a_request_that_waits_too_long_is_refused_and_its_place_is_free() -> None:
    async def test() -> None:
        turns = Turns(running=1, waiting=1, patience=0.01)
        async with turns.turn():
            with pytest.raises(Refusal, match="has waited for"):
                async with turns.turn():
                    pass
        async with turns.turn():
            assert (turns.running, turns.waiting) == (1, 0)

    run(test)


def test_a_request_that_is_cancelled_while_it_waits_leaves_no_trace() -> None:
    async def test() -> None:
        turns = Turns(running=1, waiting=5, patience=60)

        async def request() -> None:
            async with turns.turn():
                pass

        async with turns.turn():
            waiting = asyncio.create_task(request())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert turns.waiting == 0
        await request()
        assert turns.running == 0

    run(test)


def test_a_client_may_send_so_many_requests_a_minute_and_others_too() -> None:
    now = 0.0
    rate = Rate(2, clock=lambda: now)
    rate.count("a")
    now = 10.0
    rate.count("a")
    rate.count("b")
    now = 30.5
    with pytest.raises(Refusal, match="2 requests within a minute") as refused:
        rate.count("a")
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "30"})
    now = 60.0
    rate.count("a")
    with pytest.raises(Refusal):
        rate.count("a")
