"""The planning stage of annotation: what is left to do of some videos, as shards that different workers take.

Short videos share a shard; a long one is cut into stretches, which become one result later.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from pipelines.annotate.decode import ShardContext, UnitContext
from pipelines.annotate.events import LongVideo, News, VideoSeen
from pipelines.annotate.layout import (
    PLANS,
    WINDOWS,
    ExpressionGroup,
    expression_groups,
    read_group,
    remove_windows,
    stretches_of,
    write_group,
)
from pipelines.annotate.settings import SHARD_BYTES, SHARD_VIDEOS, WINDOWS_EACH, Settings
from pipelines.errors import BadItem, Failure
from pipelines.files import Folder
from pipelines.inference.messages import decode_items, encode_units
from pipelines.inference.protocols import InferenceProtocol
from pipelines.predictions import mean_rate
from pipelines.records import Expression
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline
from pipelines.video.segments import DecodeUnit, segments
from pipelines.video.worker_decoder import decoder
from sgmg.resize import resized_size


@dataclass(frozen=True, slots=True)
class AnnotationRequest:
    """A video and its expressions.

    Attributes:
        video: which one.
        expressions: all of the video, answered or not.
        answered: ids of the expressions that are answered, by the fingerprint of the video that they are answered for.
    """

    video: Video
    expressions: tuple[Expression, ...]
    answered: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Requests that are planned by one task. `number` is that of the chunk in the run."""

    number: int
    requests: tuple[AnnotationRequest, ...]


@dataclass(frozen=True, slots=True)
class PlanStage:
    """A stage that turns requests into shards that are left to decode.

    Attributes:
        out: folder of the run.
        settings: of the run.
        protocol: size of the frames.
        fingerprint: of checkpoint and settings.
        time_limit: seconds without a heartbeat of the decoder, after which a video fails.
        run: a name that no other run has.
    """

    out: Folder
    settings: Settings
    protocol: InferenceProtocol
    fingerprint: str
    time_limit: float
    run: str

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a message for each shard of each chunk."""
        for chunk in decode_items(batch, Chunk):
            path = f"{PLANS}/{self.run}/{chunk.number:06d}.arrow"
            # Ray runs a task again after a node failure and expects identical output; by then more of a long video may
            # be done. So the plan is stored once for each run.
            try:
                stored = self.out.read(path)
            except FileNotFoundError:
                messages = list(self._plan(chunk.requests))
                self._store(path, messages)
                yield from messages
            else:
                yield from (pa.Table.from_batches([part]) for part in pa.ipc.open_stream(pa.py_buffer(stored)))

    def _store(self, path: str, messages: Sequence[pa.Table]) -> None:
        with self.out.output(path) as stream, pa.ipc.new_stream(stream, messages[0].schema) as writer:
            for message in messages:
                writer.write_table(message)

    def _plan(self, requests: Sequence[AnnotationRequest]) -> Iterator[pa.Table]:
        """Yields the shards of some videos, at least one."""
        shard = _Shard(self.fingerprint)
        for request in requests:
            video = request.video
            try:
                with decoder(self.time_limit) as worker_decoder:
                    times = self.settings.image_fps, self.settings.fps is not None
                    timeline = worker_decoder.timeline(video, False, *times)
                    with_cuts = partial(worker_decoder.timeline, video, True, *times)
                    planned = self.plan_video(request, timeline, with_cuts)
            except BadItem as error:
                planned = _failed(video, Failure(video.path, error.stage, error.reason))
            except (ValueError, MemoryError) as error:  # what an odd header can lead to
                reason = f"it cannot be planned ({type(error).__name__}: {error})"
                planned = _failed(video, Failure(video.path, "decode", reason))
            if planned.long:
                first = News((), (planned.long,))
                for unit, context in planned.units:
                    yield _Shard(self.fingerprint, [(unit, context)], news=first).message()
                    first = News()
                if not planned.units:  # only the join is left
                    shard.news = News(shard.news.seen, (*shard.news.long, planned.long))
                continue
            if planned.units and shard.is_full(planned.bytes):
                yield shard.message()
                shard = _Shard(self.fingerprint)
            shard.add(planned)
        if shard.news != News() or shard.units:
            yield shard.message()

    def plan_video(
        self, request: AnnotationRequest, timeline: Timeline, with_cuts: Callable[[], Timeline]
    ) -> "Planned":
        """Returns what is left to do of a video.

        Args:
            request: the video and its expressions.
            timeline: its frames.
            with_cuts: returns them with the cuts between shots; decodes the whole video. It is called for a long video
                only: the cuts of a short one are found when it is decoded for its windows.
        """
        video = request.video
        fingerprint = timeline.info.fingerprint
        kept = set(request.answered.get(fingerprint, ()))
        left = [expression for expression in request.expressions if expression.id not in kept]
        seen = VideoSeen(video.id, video.path, video.stamp, fingerprint, len(request.expressions) - len(left))
        if not left:
            return Planned(seen)
        (whole,) = self._units(video, timeline, None)
        seconds = seconds_of(timeline)
        size = self._bytes(whole, whole.windows)
        groups = expression_groups(video.id, fingerprint, self.fingerprint, left)
        if len(groups) == 1 and len(whole.windows) <= WINDOWS_EACH and size <= SHARD_BYTES:
            context = UnitContext(groups, timeline.named_by_index, seconds, rate_of(timeline, whole))
            return Planned(seen, [(whole, context)], size)
        if self.settings.shots:
            timeline = with_cuts()
            (whole,) = self._units(video, timeline, None)
        return self._plan_long(seen, timeline, whole, left, seconds)

    def _plan_long(
        self, seen: VideoSeen, timeline: Timeline, whole: DecodeUnit, left: Sequence[Expression], seconds: float
    ) -> "Planned":
        video = whole.video
        largest = max(stop - first for first, stop, _ in whole.windows)
        each = max(1, min(WINDOWS_EACH, SHARD_BYTES // self._bytes(whole, [(0, largest, 0)])))
        groups = self._groups(video, seen.fingerprint, left)
        done = [stretches_of(self.out, group) for group in groups]
        count, rate = -(-len(whole.windows) // each), rate_of(timeline, whole)
        units: list[tuple[DecodeUnit, UnitContext]] = []
        for unit in [whole] if whole.index_keys else self._units(video, timeline, each):
            first = unit.first_window // each
            numbers = range(first, first + -(-len(unit.windows) // each))
            todo = [tuple(number for number in numbers if number not in known) for known in done]
            left_of = [(group, some) for group, some in zip(groups, todo, strict=True) if some]
            # A task that decodes for one group sends one message, and never waits, with its cores, for a predictor to
            # take the first of many: what a lost node held could then find no room to be made again.
            for part in [left_of] if whole.index_keys else [[one] for one in left_of]:
                if part:
                    of_part, numbers_of = zip(*part, strict=True)
                    context = UnitContext(of_part, timeline.named_by_index, seconds, rate, each, numbers_of)
                    units.append((unit, context))
        pieces = sum(count - len(known) for known in done)
        return Planned(seen, units, long=LongVideo(seen, seconds, groups, count, pieces))

    def _units(self, video: Video, timeline: Timeline, windows_each: int | None) -> tuple[DecodeUnit, ...]:
        return segments(
            video,
            timeline,
            fps=self.settings.fps,
            length=self.settings.window,
            overlap=self.settings.overlap,
            windows_each=windows_each,
        )

    def _bytes(self, unit: DecodeUnit, windows: Sequence[tuple[int, int, int]]) -> int:
        """Returns the bytes of the frames of some windows, as the model sees them."""
        height, width = resized_size(
            unit.info.shown_height, unit.info.shown_width, self.protocol.short_side, self.protocol.long_side
        )
        return 3 * height * width * sum(stop - first for first, stop, _ in windows)

    def _groups(self, video: Video, fingerprint: str, left: Sequence[Expression]) -> tuple[ExpressionGroup, ...]:
        """Returns the groups of the expressions that are left: unfinished ones of earlier runs, and new ones.

        Unfinished groups that do not fit the video, the settings or the expressions any more are deleted.
        """
        groups: list[ExpressionGroup] = []
        ungrouped = set(left)
        for name in self.out.names(f"{WINDOWS}/{video.id}"):
            group = read_group(self.out, f"{WINDOWS}/{video.id}/{name}")
            same = group and (group,) == expression_groups(video.id, fingerprint, self.fingerprint, group.expressions)
            if group and same and set(group.expressions) <= ungrouped:
                groups.append(group)
                ungrouped -= set(group.expressions)
            else:
                remove_windows(self.out, ExpressionGroup(video.id, name, ()))
        new = expression_groups(video.id, fingerprint, self.fingerprint, tuple(ungrouped))
        for group in new:
            write_group(self.out, group)
        return (*groups, *new)


@dataclass(slots=True)
class Planned:
    """Work left to do of one video: units to decode, and the bytes of their frames; or stretches of a long video."""

    seen: VideoSeen
    units: list[tuple[DecodeUnit, UnitContext]] = field(default_factory=list)
    bytes: int = 0
    long: LongVideo | None = None


@dataclass(slots=True)
class _Shard:
    """A growing shard."""

    fingerprint: str
    units: list[tuple[DecodeUnit, UnitContext]] = field(default_factory=list)
    bytes: int = 0
    news: News = field(default_factory=News)

    def is_full(self, more: int) -> bool:
        """Returns whether a video of so many bytes has no place in it."""
        return bool(self.units) and (self.bytes + more > SHARD_BYTES or len(self.units) >= SHARD_VIDEOS)

    def add(self, planned: Planned) -> None:
        """Adds a short video, or the news that nothing is left to do of it."""
        self.units += planned.units
        self.bytes += planned.bytes
        self.news = News((*self.news.seen, planned.seen), self.news.long)

    def message(self) -> pa.Table:
        """Returns the message for the decoding stage. Equal shards have equal names, in every run."""
        made_of = [
            [unit.video.id, unit.info.fingerprint, unit.number, [group.name for group in context.groups]]
            for unit, context in self.units
        ]
        seen = [[one.video, one.fingerprint] for one in self.news.seen] if not made_of else []
        text = json.dumps([self.fingerprint, made_of, seen])
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        return encode_units(self.units, ShardContext(name, self.news.with_retries()))


def _failed(video: Video, failure: Failure) -> Planned:
    return Planned(VideoSeen(video.id, video.path, video.stamp, "", failure=failure))


def rate_of(timeline: Timeline, whole: DecodeUnit) -> float | None:
    """Returns the mean rate of the frames that are chosen of a video; None if their times are not known."""
    return None if timeline.untimed else mean_rate(whole.times)


def seconds_of(timeline: Timeline) -> float:
    """Returns the length of the video in seconds."""
    times = timeline.times
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (timeline.info.fps or 24.0)
    return float(times[-1] - times[0] + step)
