"""Two kinds of trouble with raw data: the whole layout is wrong, or one item is."""

from dataclasses import dataclass
from enum import IntEnum


class LayoutError(ValueError):
    """The folder is not what was said it is: nothing can be prepared. Names the file, and how to mend it."""


class BadItem(ValueError):
    """One video or image cannot be prepared; it goes to quarantine with this reason, and the rest goes on.

    Args:
        video: which one.
        stage: what was being done: list, read or decode.
        reason: what is wrong, where, in words for a person.
    """

    def __init__(self, video: str, stage: str, reason: str) -> None:
        super().__init__(f"{video}: {reason}")
        self.video, self.stage, self.reason = video, stage, reason

    def __reduce__(self) -> tuple[type["BadItem"], tuple[str, str, str]]:
        return BadItem, (self.video, self.stage, self.reason)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something smaller than a video that was left out in the open: counted by reason in the manifest."""

    video: str
    reason: str  # one of a few fixed phrases, so that they can be counted
    what: str  # which expression, object or frame


class Exit(IntEnum):
    """Exit codes of the jobs."""

    CLEAN = 0
    FAILED = 1
    QUARANTINE = 3  # finished, but some items could not be used


class JobError(Exception):
    """Something a person can mend: shown as one sentence, without a traceback; the job ends with `Exit.FAILED`."""
