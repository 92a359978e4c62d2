"""Errors that every stage speaks of, and the exit codes of jobs."""

import errno
import re
import reprlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Numbers of the system's errors for a disk that takes no more files."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 120, 120, 40


class LayoutError(ValueError):
    """Error in the layout of a whole input: nothing can be read from it. The message names the file and the remedy."""


class DamagedFile(ValueError):
    """Error: a file, or an entry of a zip, is damaged. The message names it and the remedy."""


class BadItem(ValueError):
    """Error in one video or image: it goes to quarantine with this reason, and the rest continues.

    Args:
        video: name of the video or image.
        stage: list, read, decode or predict.
        reason: what is wrong and where, for people.
    """

    def __init__(self, video: str, stage: str, reason: str) -> None:
        super().__init__(f"{video}: {reason}")
        self.video, self.stage, self.reason = video, stage, reason

    def __reduce__(self) -> tuple[type["BadItem"], tuple[str, str, str]]:
        return BadItem, (self.video, self.stage, self.reason)


@dataclass(frozen=True, slots=True)
class Failure:
    """One video or image that could not be used: a line of the quarantine.

    Attributes:
        video: its name or path.
        stage: list, read, decode, predict, overlay or format.
        reason: for people.
    """

    video: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """An expression, object or frame that was left out; the manifest counts them by reason."""

    video: str
    reason: str  # one of a few fixed phrases, to be counted
    what: str  # which expression, object or frame


class Exit(IntEnum):
    """Exit codes of the jobs."""

    CLEAN = 0
    FAILED = 1
    QUARANTINE = 3  # finished, but some items could not be used
    INTERRUPTED = 130  # by Ctrl-C (SIGINT)
    TERMINATED = 143  # by SIGTERM


class JobError(Exception):
    """Error that a user can mend: printed as one sentence without a traceback; the job ends with `Exit.FAILED`.

    Where a signal ended the job, its exit code is that of the signal.
    """


def shown(value: object) -> str:
    """Returns a value from a file for a message: its beginning, as it may be of any size and nested to any depth.

    >>> shown(["a" * 100, [1, 2], None])
    "['aaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaa', [1, 2], None]"
    """
    return _SHORT.repr(value)


def root_cause(error: BaseException) -> str:
    """Returns the message of the error that a Ray worker raised, without the tracebacks that Ray puts before it.

    Failures of several workers of Ray Train are joined, one line each.
    """
    failures: Any = getattr(error, "worker_failures", None)
    if failures:
        lines = (f"{type(cause).__name__}: {cause}".strip().splitlines()[-1] for cause in failures.values())
        return "; ".join(dict.fromkeys(lines))
    text = str(error).strip()
    # After the last traceback, the error itself starts at the beginning of a line.
    match = re.search(r'  File ".*^(?:[\w.]*\.)?(\w+: .*)', text, flags=re.MULTILINE | re.DOTALL)
    return match[1] if match else text or type(error).__name__
