"""The progress of a run of predictions and its speed, for a terminal or for a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from pipelines.predict.write import UnitDone
from pipelines.session import terminal

_log = logging.getLogger(__name__)

SAY_EVERY = 10.0
"""Seconds between two lines of the log, where there is no terminal for a bar."""


class Progress:
    """Counts of what is done, and the speed: a bar on a terminal, else a line in the log every ten seconds."""

    def __init__(self, units: int) -> None:
        self.units = self.videos = self.frames = self.expressions = self.failed = self.crashes = 0
        self._all_units = units
        self._waited = self._busy = 0.0
        self._started = time.monotonic()

    def count(self, done: UnitDone) -> None:
        """Adds a unit that is done."""
        self.units += 1
        self.videos += done.videos
        self.frames += done.frames
        self.expressions += done.expressions
        self.failed += done.failed
        self._waited += done.waited
        self._busy += done.busy
        self.crashes += done.crashes

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = self._all_units - self.units
        eta = f"{left / self.units * seconds:.0f} s left" if self.units else "time left unknown"
        waiting = self._waited / max(self._waited + self._busy, 1e-9)
        return (
            f"{self.units}/{self._all_units} units, {self.videos / seconds:.2f} videos/s, "
            f"{self.frames / seconds:.1f} frames/s, {eta}, waiting for data {waiting:.0%}, "
            f"{self.failed} in quarantine, {self.crashes} failed actors"
        )

    def shown(self, stream: Iterable[UnitDone]) -> Iterator[UnitDone]:
        """The same units; says after each, where it is time, how far the work is."""
        watched = terminal()
        bar = tqdm(total=self._all_units, unit="unit", file=sys.stderr, disable=not watched)
        said = time.monotonic()
        with bar:
            for done in stream:
                yield done
                bar.update()
                bar.set_postfix_str(str(self).partition(", ")[2], refresh=False)
                if not watched and time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    _log.info("%s", self)
