"""Annotation as a stream: plan → decode (CPU) → predict (actors) → write → join; memory stays bounded.

The first four run on Ray Data. What they say of every segment and window comes back as news; once all of a video is
there, a task of its own joins it.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from pipelines.annotate.decode import DecodeStage
from pipelines.annotate.join import JoinResult, join_batch
from pipelines.annotate.layout import PLANS, remove_folder
from pipelines.annotate.plan import AnnotationRequest, PlanStage
from pipelines.annotate.settings import Settings
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.video_state import VideoState
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.actor import CrashCounter
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.quarantine import write_failures
from pipelines.inference.stream import Resources, _rows
from pipelines.inference.window_actor import Annotate

_MOST_BLOCKS = 1000
"""Of videos; more would only cost the scheduler."""
_BLOCK_BYTES = 1
"""A block ends behind every window: predictors take windows one at a time, and no worker holds many."""
_WRITE_CPUS, _JOIN_CPUS = 0.1, 0.5
"""Logical cores of a task that writes, which mostly waits for the storage, and of one that joins."""
_AHEAD = 4
"""Tasks that decode at once, at most, for each predictor."""
_PLAN_CALLS, _DECODE_CALLS = 200, 201
"""Tasks a worker does before a fresh one takes its place. That the numbers differ keeps Ray from fusing the stages:
a video's segments would then all be decoded by the worker that planned it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """How everything is annotated.

    Attributes:
        out: folder of the run.
        fingerprint: of checkpoint and settings.
        time_limit: seconds that decoding may give no sign of life.
    """

    out: Folder
    recipe: PredictorSpec
    settings: Settings
    resources: Resources
    fingerprint: str
    time_limit: float

    @property
    def rules(self) -> JoinSettings:
        """Those of the join."""
        return JoinSettings(self.settings.min_score, self.settings.independent, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Finished:
    """A batch of a video's sentences whose rows are there."""

    video: str
    joined: JoinResult


News = dict[str, Any]


def annotated(asked: Sequence[AnnotationRequest], stream: Stream) -> Iterator[News | Finished | VideoState]:
    """Does what is left to do, and tells of it: news of videos, segments and windows as they come; a batch whose rows
    are there; the standing of a video when nothing more comes of it.

    What a worker or node had in hand when it died is done again elsewhere.

    Raises:
        ray.exceptions.RayError: something failed that is no fault of a single video; what is written stays.
    """
    if not asked:
        return
    remove_folder(stream.out, PLANS)  # of a run that was killed
    open_ = {one.video.id: VideoState(one.video) for one in asked}
    joins = _Joins(stream)
    for row in _rows(_dataset(asked, stream)):
        news = json.loads(row["about"])
        if standing := open_.get(news["video"]):
            standing.apply(news)
            yield news
            if standing.ended:
                yield from joins.begin(open_.pop(standing.video.id))
        yield from joins.done(wait=False)
    yield from joins.done(wait=True)
    remove_folder(stream.out, PLANS)
    if open_:
        names = ", ".join(standing.video.path for standing in list(open_.values())[:5])
        raise RuntimeError(f"{len(open_)} videos were begun and never ended: {names}. Run the same command again.")


class _Joins:
    """The tasks that join the videos of which all windows are there."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._task: Any = ray.remote(num_cpus=_JOIN_CPUS, max_retries=-1)(join_batch)
        self._running: dict[ray.ObjectRef, VideoState] = {}

    def begin(self, standing: VideoState) -> Iterator[VideoState]:
        """Starts the tasks of a video; where it needs none, that was all of it."""
        out, rules = self._stream.out, self._stream.rules
        tasks = standing.tasks()
        for one in tasks:
            reference = self._task.remote(one.batch, one.windows, one.fingerprint, out, rules, one.missing)
            self._running[reference] = standing
        if not tasks:
            yield self._ended(standing)

    def done(self, wait: bool) -> Iterator[Finished | VideoState]:
        """What was joined since, or, waiting for it, all that is left; and the videos of which these were the last."""
        while self._running:
            ready, _ = ray.wait(list(self._running), timeout=None if wait else 0)
            for one in ready:
                standing, told = self._running.pop(one), ray.get(one)
                yield Finished(standing.video.id, told)
                standing.joined(told)
                if not standing.joins:
                    yield self._ended(standing)
            if not ready:
                return

    def _ended(self, standing: VideoState) -> VideoState:
        """The standing of a video of which nothing more comes, when what failed of it is written down."""
        failures = sorted(standing.failures, key=lambda one: (one.stage, one.reason))
        write_failures(self._stream.out, standing.video.id, failures)
        return standing


def _dataset(asked: Sequence[AnnotationRequest], stream: Stream) -> ray.data.Dataset:
    """News of everything that is done, as it is done."""
    resources = stream.resources
    least, most = resources.actors
    blocks = min(len(asked), _MOST_BLOCKS)
    dataset = ray.data.from_items([{"asked": one.to_json()} for one in asked], override_num_blocks=blocks)
    dataset.context.enable_progress_bars = False
    dataset.context.target_max_block_size = _BLOCK_BYTES
    dataset.context.raise_original_map_exception = True
    # It advises every half minute to reserve memory that workers share in the object store.
    dataset.context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(CrashCounter).remote()
    planned = dataset.map_batches(
        PlanStage(stream.out, stream.settings, stream.fingerprint, stream.time_limit, uuid.uuid4().hex).__call__,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=resources.cpus_per_decode,
        max_calls=_PLAN_CALLS,
    )
    decoded = planned.map_batches(
        DecodeStage(stream.out, stream.settings, stream.recipe.protocol, stream.time_limit).__call__,
        batch_size=1,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(_AHEAD * most),
        num_cpus=resources.cpus_per_decode,
        max_calls=_DECODE_CALLS,
    )
    found = decoded.map_batches(
        Annotate,
        fn_constructor_args=(stream.recipe, attempts),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
        num_gpus=resources.gpus_per_actor,
        num_cpus=resources.cpus_per_actor,
    )
    return found.map_batches(
        WriteStage(stream.out).__call__, batch_size=1, batch_format="pyarrow", num_cpus=_WRITE_CPUS
    )
