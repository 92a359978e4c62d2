"""A stream that stands still says so, and ends."""

import logging
import time
from collections.abc import Iterator

import pytest

from pipelines.errors import JobError
from pipelines.inference.stream import watched


def slow(*pauses: float) -> Iterator[int]:
    for number, pause in enumerate(pauses):
        time.sleep(pause)
        yield number


def test_items_come_as_they_are_and_so_do_errors() -> None:
    assert list(watched(iter(range(3)), limit=100)) == [0, 1, 2]

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("out of luck")

    items = watched(failing(), limit=100)
    assert next(items) == 1
    with pytest.raises(ValueError, match="out of luck"):
        next(items)


def test_the_time_that_the_caller_takes_does_not_count() -> None:
    for _ in watched(slow(0, 0, 0), limit=0.5):
        time.sleep(0.6)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_stream_that_stands_still_says_what_it_waits_for_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(watched(slow(0, 0.5), limit=100, patience=0.2)) == [0, 1]
    assert "nothing has moved for 0.0 minutes; 1 nodes are there, 4 of 4 CPUs free" in caplog.text
    items = watched(slow(0, 100), limit=0.3, patience=0.1)
    assert next(items) == 0
    with pytest.raises(JobError, match=r"The run was given up: nothing has moved.*--stall-limit.*the same command"):
        next(items)
