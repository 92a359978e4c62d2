"""A queue of jobs that gives every request its turn, so that a long video does not block short ones."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Jobs of several requests: requests take turns, and the jobs of each keep their order. For one thread.

    >>> queue = FairQueue()
    >>> for request, job in (("long", 1), ("long", 2), ("long", 3), ("short", 4)):
    ...     queue.add(request, job)
    >>> [queue.take() for _ in range(4)]
    [1, 4, 2, 3]
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, request: str, job: T) -> None:
        """Adds a job of a request."""
        self._waiting.setdefault(request, deque()).append(job)

    def take(self) -> T:
        """Returns the next job of the request whose turn it is.

        Raises:
            IndexError: no job waits.
        """
        if not self._waiting:
            raise IndexError("No job waits in this queue.")
        return self._take(next(iter(self._waiting)))

    def take_alike(self, wanted: Callable[[T], bool], most: int) -> list[T]:
        """Returns jobs that are next in other requests and are wanted, at most so many, each request's first only."""
        alike = [request for request, jobs in self._waiting.items() if wanted(jobs[0])]
        return [self._take(request) for request in alike[:most]]

    def remove(self, job: T) -> None:
        """Removes a job, if it still waits."""
        for request, jobs in self._waiting.items():
            if job in jobs:
                jobs.remove(job)
                if not jobs:
                    del self._waiting[request]
                return

    def _take(self, request: str) -> T:
        jobs = self._waiting.pop(request)
        job = jobs.popleft()
        if jobs:
            self._waiting[request] = jobs  # at the end: the others are next
        return job
