"""The long videos of a run: which stretches are left, and which groups can be joined, by news in any order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.annotate.events import LongVideo, News, StretchDone
from pipelines.annotate.layout import ExpressionGroup
from pipelines.errors import Failure
from pipelines.ledger import Entry


@dataclass(frozen=True, slots=True)
class JoinTask:
    """A group of a long video whose stretches have all been tried.

    Attributes:
        group: the expressions.
        entry: of the video, with the sentences of the group.
        failures: why windows are missing; empty if none is.
    """

    group: ExpressionGroup
    entry: Entry
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class _State:
    plan: LongVideo | None = None
    arrived: dict[tuple[str, int], tuple[Failure, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class LongVideos:
    """Long videos that are not joined yet, by id."""

    states: dict[str, _State] = field(default_factory=dict)

    def apply(self, news: News, done: Sequence[StretchDone]) -> Iterator[JoinTask]:
        """Applies news, and yields the joins that can start. Idempotent: Ray may deliver news twice."""
        touched = []
        for plan in news.long:
            self.states.setdefault(plan.seen.video, _State()).plan = plan
            touched.append(plan.seen.video)
        for one in (*news.failed, *done):
            self.states.setdefault(one.video, _State()).arrived[one.group, one.number] = one.failures
            touched.append(one.video)
        for video in dict.fromkeys(touched):
            state = self.states[video]
            if state.plan and len(state.arrived) == state.plan.todo:
                yield from _joins(state.plan, self.states.pop(video))


def _joins(plan: LongVideo, state: _State) -> Iterator[JoinTask]:
    seen = plan.seen
    for group in plan.groups:
        lost = [one for (name, _), failures in state.arrived.items() if name == group.name for one in failures]
        entry = Entry(
            seen.video, seen.path, seen.stamp, seen.fingerprint, group.sentences, file=group.file, seconds=plan.seconds
        )
        yield JoinTask(group, entry, tuple(sorted(set(lost), key=lambda one: (one.stage, one.reason))))
