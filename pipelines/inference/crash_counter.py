"""The count of crashed predictors of a run. A module of its own: its actor starts without the model's imports."""

from collections import Counter


class CrashCounter:
    """An actor, one for each run, that counts how often a unit was started and not finished: its predictor crashed."""

    def __init__(self) -> None:
        self._started: Counter[str] = Counter()

    def start(self, unit: str) -> int:
        """Marks the unit as started. Returns how many predictors have crashed on it so far."""
        self._started[unit] += 1
        return self._started[unit] - 1

    def finish(self, unit: str) -> None:
        """Marks the unit as survived: later retries count from 0."""
        del self._started[unit]
