"""The progress of a job: a bar on a terminal, else log lines."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from pipelines.session import terminal

_log = logging.getLogger(__name__)

LOG_INTERVAL = 10.0
"""Seconds between two log lines, if stderr is no terminal."""

T = TypeVar("T")


def track(
    items: Iterable[T],
    total: int,
    unit: str,
    status: Callable[[], object] | None = None,
    units_done: Callable[[], int] | None = None,
) -> Iterator[T]:
    """Yields the items, and after each shows the progress: a bar, or a log line every `LOG_INTERVAL` seconds.

    Args:
        items: to yield.
        total: number of units expected.
        unit: name of a unit, in the singular.
        status: returns the text of a log line, called after the caller has handled an item. Its part after the first
            comma is shown beside the bar, which counts units itself. Default: "3 of 8 shards".
        units_done: returns how many units are complete, called after the caller has handled an item; by default
            every item is a unit.
    """
    on_terminal = terminal()
    last_logged = time.monotonic()
    items_done = done = 0
    with tqdm(total=total, unit=unit, file=sys.stderr, disable=not on_terminal) as bar:
        for item in items:
            yield item
            items_done += 1
            before, done = done, units_done() if units_done else items_done
            if status:
                bar.set_postfix_str(str(status()).partition(", ")[2], refresh=False)
            bar.update(done - before)
            if not on_terminal and time.monotonic() - last_logged > LOG_INTERVAL:
                last_logged = time.monotonic()
                _log.info("%s", status() if status else f"{done} of {total} {unit}s")
