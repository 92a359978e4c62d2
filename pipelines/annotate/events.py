"""The events of annotation: what its stages report of videos, segments and windows, in any order."""

from dataclasses import dataclass
from typing import get_args

from pipelines.annotate.layout import ExpressionGroup
from pipelines.inference.quarantine import Failure


@dataclass(frozen=True, slots=True)
class Planned:
    """Event: the work left to do of a video is known.

    Attributes:
        video: its id.
        segments: how many are left to decode.
        groups: expression groups that are left to answer.
        kept: expressions that an earlier run answered.
        problems: expressions that cannot be answered, as sentences for people.
        windows: those of segments that are done already.
        fingerprint: of the video file.
        seconds: length of the video; 0 where nothing is left to do.
    """

    video: str
    segments: int
    groups: tuple[ExpressionGroup, ...] = ()
    kept: int = 0
    problems: tuple[str, ...] = ()
    windows: tuple[int, ...] = ()
    fingerprint: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """Event: a segment is decoded, or failed to be.

    Attributes:
        video: its id.
        segment: number of the segment.
        windows: numbers of its windows.
        emitted: those of them that were sent to a predictor; the others were done already.
        failure: why windows are missing; None if none is.
    """

    video: str
    segment: int
    windows: tuple[int, ...]
    emitted: tuple[int, ...]
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class WindowDone:
    """Event: the predictions of a window are written, or it failed.

    Attributes:
        video: its id.
        window: number of the window.
        frames: how many the window has.
        crashes: predictors that crashed on the window before.
        waited, busy: seconds that the predictor waited for the window, and worked on it.
        failure: None if the predictions are written.
    """

    video: str
    window: int
    frames: int = 0
    crashes: int = 0
    waited: float = 0.0
    busy: float = 0.0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Event: a video cannot be planned. `video` is its id; the failure has its path."""

    video: str
    failure: Failure


Event = Planned | Decoded | WindowDone | Failed
EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)
