"""The news of annotation: what the last stage tells the driver, once for each shard, in any order."""

from dataclasses import dataclass, replace

from pipelines.annotate.layout import ExpressionGroup
from pipelines.errors import Failure
from pipelines.files import storage_retries
from pipelines.ledger import Entry


@dataclass(frozen=True, slots=True)
class VideoSeen:
    """A video that was looked at.

    Attributes:
        video, path, stamp: its id, path and stamp.
        fingerprint: of its content; empty if it cannot be read.
        kept: sentences that an earlier run answered for this content.
        failure: why it cannot be annotated; None if it can.
    """

    video: str
    path: str
    stamp: str
    fingerprint: str
    kept: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class LongVideo:
    """The work left to do of a video that is annotated in stretches.

    Attributes:
        seen: the video.
        seconds: its length.
        groups: expression groups that are left to answer.
        stretches: how many there are; those of all groups are numbered alike.
        todo: how many stretches of all groups together are left to predict.
    """

    seen: VideoSeen
    seconds: float
    groups: tuple[ExpressionGroup, ...]
    stretches: int
    todo: int


@dataclass(frozen=True, slots=True)
class StretchDone:
    """The windows of a stretch are written for one group, or it failed.

    Attributes:
        video: id.
        group: name of the group.
        number: of the stretch.
        failures: why windows are missing; empty if none is.
    """

    video: str
    group: str
    number: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """News of the stages, on their way to the driver.

    Attributes:
        seen: videos that were looked at.
        long: those of them that are annotated in stretches.
        failed: stretches that could not be decoded.
        retries: requests that were repeated because a store was too busy.
    """

    seen: tuple[VideoSeen, ...] = ()
    long: tuple[LongVideo, ...] = ()
    failed: tuple[StretchDone, ...] = ()
    retries: int = 0

    def with_retries(self) -> "News":
        """Returns the news with the requests that this process repeated since the last call."""
        return replace(self, retries=self.retries + storage_retries())


@dataclass(frozen=True, slots=True)
class ShardDone:
    """Event: what a shard held is written.

    Attributes:
        news: of planning and decoding.
        file, size: name and bytes of the result file; empty for stretches.
        entries: of the result file.
        stretches: those that are written.
        windows, frames: how many were predicted.
        crashes: predictors that crashed on the shard before.
        waited, busy: seconds that the predictor waited for the shard, and worked on it.
    """

    news: News
    file: str = ""
    size: int = 0
    entries: tuple[Entry, ...] = ()
    stretches: tuple[StretchDone, ...] = ()
    windows: int = 0
    frames: int = 0
    crashes: int = 0
    waited: float = 0.0
    busy: float = 0.0
