"""The state of one video while it is annotated, updated by the events of the stages in whatever order they arrive."""

from dataclasses import dataclass, field

from pipelines.annotate.events import Decoded, Event, Failed, Planned, WindowDone
from pipelines.annotate.join import JoinResult
from pipelines.annotate.layout import ExpressionGroup
from pipelines.inference.quarantine import Failure
from pipelines.video.listing import Video


@dataclass(frozen=True, slots=True)
class JoinTask:
    """An expression group that can be joined.

    Attributes:
        group: the expressions.
        windows: numbers of the windows that exist.
        fingerprint: of the video file.
        missing: which parts of the video are missing and why; empty if none is.
    """

    group: ExpressionGroup
    windows: tuple[int, ...]
    fingerprint: str
    missing: str


@dataclass(slots=True)
class VideoState:
    """One video: what was planned, what arrived, what failed. Updated by `apply` and `apply_join`.

    Attributes:
        video: which one.
        pending_joins: join tasks that have not ended.
        failures: what goes into the quarantine.
        seconds, frames: length of the video; 0 where nothing was left to do.
        kept: expressions that an earlier run answered.
        groups: expression groups that are left to answer.
        answered, partial: whether this run wrote rows of the video, and whether parts of the video are missing in them.
    """

    video: Video
    pending_joins: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0
    kept: int = 0
    groups: tuple[ExpressionGroup, ...] = ()
    answered: bool = False
    partial: bool = False
    _fingerprint: str = ""
    _planned: bool = False
    _segments: int = 0
    _decoded: set[int] = field(default_factory=set)
    _windows: set[int] = field(default_factory=set)
    _emitted: set[int] = field(default_factory=set)
    _arrived: set[int] = field(default_factory=set)
    _failed_windows: set[int] = field(default_factory=set)

    def apply(self, event: Event) -> None:
        """Applies one event. Idempotent: Ray may deliver an event twice."""
        match event:
            case Failed():
                self._fail(event.failure)
                self._planned = True
            case Planned():
                self._plan(event)
            case Decoded():
                self._decoded.add(event.segment)
                self._windows |= set(event.windows)
                self._emitted |= set(event.emitted)
                if event.failure:
                    self._fail(event.failure)
            case WindowDone():
                self._arrived.add(event.window)
                if event.failure:
                    self._failed_windows.add(event.window)
                    self._fail(event.failure)

    @property
    def ended(self) -> bool:
        """Whether the stages will report nothing more of the video."""
        return self._planned and len(self._decoded) == self._segments and self._emitted <= self._arrived

    def join_tasks(self) -> list[JoinTask]:
        """Returns the joins of an ended video, one for each group; none where it has no window."""
        windows = tuple(sorted(self._windows - self._failed_windows))
        if not windows:
            return []
        self.pending_joins = len(self.groups)
        missing = "; ".join(sorted(one.reason for one in self.failures if one.stage != "list"))
        return [JoinTask(group, windows, self._fingerprint, missing) for group in self.groups]

    def apply_join(self, result: JoinResult) -> None:
        """Applies the result of one of its join tasks."""
        self.pending_joins -= 1
        self.answered = True
        self.frames = max(self.frames, result.frames)
        self.partial |= bool(result.note)

    def _plan(self, event: Planned) -> None:
        self._planned, self._segments, self.kept = True, event.segments, event.kept
        self.groups = event.groups
        for problem in event.problems:
            self._fail(Failure(self.video.path, "list", problem))
        if self.groups:
            self._windows |= set(event.windows)
            self._fingerprint, self.seconds = event.fingerprint, event.seconds

    def _fail(self, failure: Failure) -> None:
        if failure not in self.failures:
            self.failures.append(failure)
