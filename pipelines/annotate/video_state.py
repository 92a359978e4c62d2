"""What is known of one video while it is annotated: told by the stages, in whatever order their news come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.annotate.join import JoinResult
from pipelines.annotate.layout import ExpressionGroup
from pipelines.inference.quarantine import Failure
from pipelines.video.listing import Video


@dataclass(frozen=True, slots=True)
class JoinTask:
    """A batch that can be joined: which windows there are, and what is missing."""

    batch: ExpressionGroup
    windows: tuple[int, ...]
    fingerprint: str
    missing: str


@dataclass(slots=True)
class VideoState:
    """One video: what was planned, what came, what failed. Filled in by `apply`.

    Attributes:
        joins: tasks that join its batches and have not ended.
        failures: what the quarantine will say.
        seconds, frames: of the video; 0 where nothing was left to do.
        kept: sentences that were answered by an earlier run.
        answered, partial: whether rows of it were written now, and whether something of it is missing there.
    """

    video: Video
    joins: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0
    kept: int = 0
    batches: tuple[ExpressionGroup, ...] = ()
    answered: bool = False
    partial: bool = False
    _fingerprint: str = ""
    _planned: bool = False
    _segments: int = 0
    _decoded: set[int] = field(default_factory=set)
    _windows: set[int] = field(default_factory=set)
    _asked: set[int] = field(default_factory=set)
    _came: set[int] = field(default_factory=set)
    _lost: set[int] = field(default_factory=set)

    def apply(self, news: Mapping[str, Any]) -> None:
        """Takes in one piece of news; the same twice is the same once."""
        if news["news"] == "failed":
            self._fail(news)
            self._planned = True
        elif news["news"] == "planned":
            self._plan(news)
        elif news["news"] == "decoded":
            self._decoded.add(news["segment"])
            self._windows |= set(news["windows"])
            self._asked |= set(news["asked"])
            if news["failure"]:
                self._fail(news["failure"])
        elif news["news"] == "window":
            self._came.add(news["window"])
            if "failure" in news:
                self._lost.add(news["window"])
                self._fail(news["failure"])

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it from the stages."""
        return self._planned and len(self._decoded) == self._segments and self._asked <= self._came

    def tasks(self) -> list[JoinTask]:
        """What can be joined now that it ended: nothing where no window could be had."""
        windows = tuple(sorted(self._windows - self._lost))
        if not windows:
            return []
        self.joins = len(self.batches)
        missing = "; ".join(sorted(one.reason for one in self.failures if one.stage != "list"))
        return [JoinTask(batch, windows, self._fingerprint, missing) for batch in self.batches]

    def joined(self, told: JoinResult) -> None:
        """Hears what came of one of its tasks."""
        self.joins -= 1
        self.answered = True
        self.frames = max(self.frames, told.frames)
        self.partial |= bool(told.note)

    def _plan(self, news: Mapping[str, Any]) -> None:
        self._planned, self._segments, self.kept = True, news["segments"], news["kept"]
        self.batches = tuple(ExpressionGroup.from_plain(plain) for plain in news["batches"])
        for problem in news["problems"]:
            self._fail({"stage": "list", "reason": problem})
        if self.batches:
            self._windows |= set(news["windows"])
            self._fingerprint, self.seconds = news["fingerprint"], news["seconds"]

    def _fail(self, news: Mapping[str, Any]) -> None:
        failure = Failure(self.video.path, news["stage"], news["reason"])
        if failure not in self.failures:
            self.failures.append(failure)
