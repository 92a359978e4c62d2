"""Notes of failed workers for the run's progress actor. Imports nothing heavy: Ray Train's controller unpickles it."""

from collections.abc import Mapping
from typing import Any

from ray.train import UserCallback


class FailureNotes(UserCallback):
    """A callback of Ray Train that tells the `ProgressActor` of each failure of workers.

    Workers on a node that was taken away with notice (a spot machine) did not fail, and are not told of.

    Args:
        progress: handle of the actor.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ARG002
        """Notes the exceptions of the workers, by rank. Ray Train calls this before it starts them again."""
        # Ray Train wraps the error of a lost actor, whose `preempted` says that its node was to be taken away.
        causes = (getattr(error, "health_check_failure", error) for error in worker_exceptions.values())
        if any(getattr(cause, "preempted", False) for cause in causes):
            return
        lines = (f"{type(error).__name__}: {error}".strip().splitlines()[-1] for error in worker_exceptions.values())
        self._progress.note_failure.remote("; ".join(dict.fromkeys(lines)))
