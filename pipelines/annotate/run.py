"""Annotation of a corpus: plan → decode → predict → write on Ray Data, then a task for each group that joins it.

The stages report every segment and window as an event. Once all windows of a video are written, its groups are joined.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from pipelines.annotate.decode import DecodeStage
from pipelines.annotate.events import EVENT_TYPES, Event
from pipelines.annotate.join import JoinResult, join_group
from pipelines.annotate.layout import PLANS
from pipelines.annotate.plan import AnnotationRequest, PlanStage
from pipelines.annotate.settings import Settings
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.video_state import VideoState
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.quarantine import write_failures
from pipelines.inference.stream import Resources, Stages, run_stages

_JOIN_CPUS = 0.5
"""Logical cores of a task that joins: it waits for the storage half of the time."""


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
        return JoinSettings(self.settings.min_score, self.settings.independent, self.fingerprint)

    @property
    def stages(self) -> Stages:
        """The stages on Ray Data, from requests to events; the plans are of a run that no other call shares."""
        return Stages(
            plan=PlanStage(self.out, self.settings, self.fingerprint, self.time_limit, run=uuid.uuid4().hex),
            decode=DecodeStage(self.out, self.settings, self.spec.protocol, self.time_limit),
            predict=self.spec,
            write=WriteStage(self.out),
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """Event: the rows of an expression group are written. `video` is the id of its video."""

    video: str
    joined: JoinResult


def annotate_videos(requests: Sequence[AnnotationRequest], stream: Stream) -> Iterator[Event | Finished | VideoState]:
    """Annotates every video that is not finished, and yields progress.

    Yields an event for each video, segment and window, a `Finished` when the rows of a group are written, and the final
    state of each video. Work whose worker or node dies is done again elsewhere.

    Raises:
        ray.exceptions.RayError: an error that is not the fault of a single video; results so far are kept.
        RuntimeError: a video was started but not finished.
    """
    if not requests:
        return
    stream.out.remove_folder(PLANS)  # of a run that was killed
    unfinished = {request.video.id: VideoState(request.video) for request in requests}
    joins = _Joins(stream)
    for event in run_stages(requests, stream.stages, stream.resources, EVENT_TYPES):
        if state := unfinished.get(event.video):
            state.apply(event)
            yield event
            if state.ended:
                yield from joins.start(unfinished.pop(event.video))
        yield from joins.finished(wait=False)
    yield from joins.finished(wait=True)
    stream.out.remove_folder(PLANS)
    if unfinished:
        paths = ", ".join(state.video.path for state in list(unfinished.values())[:5])
        raise RuntimeError(
            f"{len(unfinished)} videos were started but not finished: {paths}. Run the same command again."
        )


class _Joins:
    """The running tasks that join the groups of videos whose windows are all written."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._task: Any = ray.remote(num_cpus=_JOIN_CPUS, max_retries=-1)(join_group)
        self._running: dict[ray.ObjectRef, VideoState] = {}

    def start(self, state: VideoState) -> Iterator[VideoState]:
        """Starts the join tasks of a video. Yields the video as finished if there is nothing to join."""
        out, settings = self._stream.out, self._stream.join_settings
        tasks = state.join_tasks()
        for one in tasks:
            reference = self._task.remote(one.group, one.windows, one.fingerprint, out, settings, one.missing)
            self._running[reference] = state
        if not tasks:
            yield self._end(state)

    def finished(self, wait: bool) -> Iterator[Finished | VideoState]:
        """Yields joins that finished since the last call, and each video whose last join this was.

        Args:
            wait: whether to wait for all that are still running.
        """
        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=None if wait else 0)
            for one in ready:
                state, result = self._running.pop(one), ray.get(one)
                yield Finished(state.video.id, result)
                state.apply_join(result)
                if not state.pending_joins:
                    yield self._end(state)
            if not ready:
                return

    def _end(self, state: VideoState) -> VideoState:
        """Writes the failures of a video that is finished, and returns its state."""
        failures = sorted(state.failures, key=lambda one: (one.stage, one.reason))
        write_failures(self._stream.out, state.video.id, failures)
        return state
