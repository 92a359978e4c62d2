"""The progress of a run of predictions and its speed, for a terminal or for a log."""

import time

from pipelines.predict.write import UnitDone


class Progress:
    """Counts of what is done so far, and their text."""

    def __init__(self, units: int) -> None:
        self.units = self.videos = self.frames = self.expressions = self.failed = self.crashes = 0
        self.retries = 0
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
        self.retries += done.retries

    def __str__(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = self._all_units - self.units
        eta = f"{left / self.units * seconds:.0f} s left" if self.units else "time left unknown"
        waiting = self._waited / max(self._waited + self._busy, 1e-9)
        return (
            f"{self.units}/{self._all_units} units, {self.videos / seconds:.2f} videos/s, "
            f"{self.expressions / seconds:.2f} sentences/s, "
            f"{self.frames / seconds:.1f} frames/s, {eta}, waiting for data {waiting:.0%}, "
            f"{self.failed} in quarantine, {self.crashes} failed actors"
        )
