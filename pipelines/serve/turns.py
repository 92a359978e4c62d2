"""Turns of requests: how many are answered at once, how many wait, and how many a client may send a minute."""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import MINUTE

_CLIENTS = 10_000
"""Addresses whose requests are counted, those that were seen last."""


class Turns:
    """Lets so many requests be answered at once, in the order in which they came. For one event loop.

    Args:
        running: requests that are answered at once.
        waiting: requests that may wait for that.
        patience: seconds that each waits, at most.
    """

    def __init__(self, running: int, waiting: int, patience: float) -> None:
        self._free = asyncio.Semaphore(running)
        self._most, self._patience = waiting, patience
        self.running = self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for the turn of a request, which ends with the block.

        Raises:
            Refusal: too many wait, or it has waited for too long.
        """
        await self._wait()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _wait(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        if self.waiting >= self._most:
            raise _busy(f"{self.running} requests are being answered and {self.waiting} wait")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise _busy(f"this one has waited for {self._patience:g} s") from None
        finally:
            self.waiting -= 1


class Rate:
    """Counts the requests of each client address in the last minute.

    Args:
        most: of one address in a minute.
        clock: seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, client: str) -> None:
        """Counts a request.

        Raises:
            Refusal: it is one too many.
        """
        now = self._clock()
        times = self._seen.setdefault(client, deque(maxlen=self._most))
        self._seen.move_to_end(client)
        if len(self._seen) > _CLIENTS:
            self._seen.popitem(last=False)
        if len(times) == self._most and now - times[0] < MINUTE:
            after = math.ceil(MINUTE - (now - times[0]))
            raise Refusal(
                429,
                f"This address has sent {self._most} requests within a minute, which is the limit. Try again in "
                f"{after} s.",
                {"Retry-After": str(after)},
            )
        times.append(now)


def _busy(why: str) -> Refusal:
    return Refusal(429, f"The service is busy: {why}. Try again in a few seconds.", {"Retry-After": "5"})
