"""Annotation of a corpus: plan → decode → predict → write on Ray Data, then a task for each group of a long video.

The last stage tells of each shard once. Once all stretches of a long video are tried, its groups are joined.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from pipelines.annotate.decode import DecodeStage
from pipelines.annotate.events import ShardDone
from pipelines.annotate.join import join_group
from pipelines.annotate.layout import PLANS
from pipelines.annotate.long_videos import JoinTask, LongVideos
from pipelines.annotate.plan import AnnotationRequest, Chunk, PlanStage
from pipelines.annotate.settings import CHUNK, Settings
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.stream import Resources, Stages, run_stages
from pipelines.ledger import Entry, Ledger
from sgmg.following import CONTEXT

_JOIN_CPUS = 0.5
"""Logical cores of a task that joins: it waits for the storage half of the time."""
_JOIN_BYTES = 8 * 2**20
"""Memory of a join for each of its sentences: a row of 1 000 masks, and what becomes of it in Parquet."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Settings and resources of a run.

    Attributes:
        out: folder of the run.
        spec: of the predictor.
        settings: which frames, in which windows.
        resources: of the cluster.
        fingerprint: of checkpoint and settings.
        time_limit: seconds without a heartbeat of the decoder, after which what it decodes fails.
    """

    out: Folder
    spec: PredictorSpec
    settings: Settings
    resources: Resources
    fingerprint: str
    time_limit: float

    @property
    def join_settings(self) -> JoinSettings:
        """Rules of how windows become tracks."""
        return JoinSettings(self.settings.min_score, self.fingerprint, CONTEXT if self.settings.causal else None)

    @property
    def stages(self) -> Stages:
        """The stages on Ray Data, from chunks to events; the plans are of a run that no other call shares."""
        protocol, run = self.spec.protocol, uuid.uuid4().hex
        return Stages(
            plan=PlanStage(self.out, self.settings, protocol, self.fingerprint, self.time_limit, run),
            decode=DecodeStage(self.settings, protocol, self.time_limit),
            predict=self.spec,
            write=WriteStage(self.out, self.join_settings),
        )


@dataclass(frozen=True, slots=True)
class Joined:
    """Event: the rows of a group of a long video are written, in a file of so many bytes."""

    entry: Entry
    size: int


def annotate_videos(
    requests: Sequence[AnnotationRequest], stream: Stream, ledger: Ledger
) -> Iterator[ShardDone | Joined]:
    """Annotates the videos, adds what is written to the ledger, and yields an event for each shard and each join.

    Work whose worker or node dies is done again elsewhere.

    Raises:
        ray.exceptions.RayError: an error that is not the fault of a single video; results so far are kept.
        RuntimeError: a long video was started but not finished.
    """
    if not requests:
        return
    stream.out.remove_folder(PLANS)  # of a run that was killed
    chunks = [
        Chunk(number, tuple(requests[first : first + CHUNK]))
        for number, first in enumerate(range(0, len(requests), CHUNK))
    ]
    long, joins = LongVideos(), _Joins(stream)
    for event in run_stages(chunks, stream.stages, stream.resources, [ShardDone]):
        for seen in event.news.seen:
            ledger.forget_failures(seen.video)
        ledger.add(event.file, event.size, event.entries)
        for seen in event.news.seen:
            if seen.fingerprint:
                ledger.settle(seen.video, seen.fingerprint, seen.stamp)
        yield event
        for task in long.apply(event.news, event.stretches):
            joins.start(task)
        yield from _added(joins.ended(wait=False), ledger)
    yield from _added(joins.ended(wait=True), ledger)
    stream.out.remove_folder(PLANS)
    if long.states:
        names = ", ".join(list(long.states)[:5])
        raise RuntimeError(
            f"{len(long.states)} videos were started but not finished: {names}. Run the same command again."
        )


def _added(joined: Iterator[Joined], ledger: Ledger) -> Iterator[Joined]:
    for one in joined:
        ledger.add(one.entry.file, one.size, [one.entry])
        ledger.settle(one.entry.video, one.entry.fingerprint, one.entry.stamp)
        yield one


class _Joins:
    """The running tasks that join the groups of long videos."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._task: Any = ray.remote(num_cpus=_JOIN_CPUS, max_retries=-1)(join_group)
        self._running: dict[ray.ObjectRef, JoinTask] = {}

    def start(self, task: JoinTask) -> None:
        """Starts a join."""
        out, settings = self._stream.out, self._stream.join_settings
        largest = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
        memory = min(_JOIN_BYTES * len(task.group.expressions), largest / 2)  # more would never be granted
        started = self._task.options(memory=int(memory)).remote(task.group, task.entry, out, settings, task.failures)
        self._running[started] = task

    def ended(self, wait: bool) -> Iterator[Joined]:
        """Yields the joins that ended since the last call.

        Args:
            wait: whether to wait for all that are still running.
        """
        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=None if wait else 0)
            for one in ready:
                task = self._running.pop(one)
                size, entry = ray.get(one)
                yield Joined(replace(entry, file=task.group.file), size)
            if not ready:
                return
