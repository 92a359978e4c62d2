"""The planning stage of annotation: what is left to do of a video, as segments that different workers take."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.annotate.decode import SegmentContext
from pipelines.annotate.events import Failed, Planned
from pipelines.annotate.join import read_marker
from pipelines.annotate.layout import (
    DONE,
    PLANS,
    WINDOWS,
    ExpressionGroup,
    expression_group,
    read_group,
    remove_file,
    remove_windows,
    write_group,
)
from pipelines.annotate.settings import WINDOWS_EACH, Settings
from pipelines.errors import BadItem
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import decode_items, encode, encode_segment
from pipelines.inference.quarantine import Failure
from pipelines.prediction_reader import PREDICTIONS
from pipelines.records import Expression
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline
from pipelines.video.segments import DecodeUnit, segments
from pipelines.video.worker_decoder import decoder


@dataclass(frozen=True, slots=True)
class AnnotationRequest:
    """A video and its expressions.

    Attributes:
        video: which one.
        expressions: all of the video, answered or not.
        markers: names of the markers of what earlier runs answered.
    """

    video: Video
    expressions: tuple[Expression, ...]
    markers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanStage:
    """A stage that turns requests into segments that are left to decode.

    Attributes:
        out: folder of the run.
        settings: of the run.
        fingerprint: of checkpoint and settings.
        time_limit: seconds without a heartbeat of the decoder, after which a video fails.
        run: a name that no other run has.
    """

    out: Folder
    settings: Settings
    fingerprint: str
    time_limit: float
    run: str

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields, for each video, a `Planned` and a message for each segment; or a `Failed`."""
        for request in decode_items(batch, AnnotationRequest):
            path = f"{PLANS}/{self.run}/{request.video.id}.arrow"
            # Ray runs a task again after a node failure and expects identical output; by then more of the video may be
            # done. So the plan is stored once for each run.
            if not self.out.has(path):
                self._store(path, self._try_plan(request))
            with self.out.open(path) as source:
                tables = [pa.Table.from_batches([part]) for part in pa.ipc.open_stream(source)]
            yield from tables

    def _store(self, path: str, messages: Sequence[pa.Table]) -> None:
        with self.out.output(path) as stream, pa.ipc.new_stream(stream, messages[0].schema) as writer:
            for message in messages:
                writer.write_table(message)

    def _try_plan(self, request: AnnotationRequest) -> list[pa.Table]:
        """Returns the messages of a video, or one that says why it failed."""
        video = request.video
        try:
            return list(self._plan(request))
        except BadItem as error:
            failure = Failure(video.path, error.stage, error.reason)
        except (ValueError, MemoryError) as error:  # what an odd header can lead to
            failure = Failure(video.path, "decode", f"it cannot be planned ({type(error).__name__}: {error})")
        return [encode(Failed(video.id, failure))]

    def _plan(self, request: AnnotationRequest) -> Iterator[pa.Table]:
        video = request.video
        with decoder(self.time_limit) as worker_decoder:
            info = worker_decoder.probe(video)
            kept, problems = self._answered(request, info.fingerprint)
            left = [expression for expression in request.expressions if expression.id not in kept]
            if not left:
                yield encode(Planned(video.id, segments=0, kept=len(kept), problems=problems))
                return
            timeline = worker_decoder.timeline(video, self.settings.shots)
        units = segments(
            video,
            timeline,
            fps=self.settings.fps,
            length=self.settings.window,
            overlap=self.settings.overlap,
            windows_each=WINDOWS_EACH,
        )
        groups = self._groups(video, timeline.info.fingerprint, left)
        files = [_files(self.out, group) for group in groups]
        done: list[int] = []
        todo: list[DecodeUnit] = []
        for unit in units:
            windows = _done_windows(self.out, groups, files, unit.number)
            if windows is None:
                todo.append(unit)
            else:
                done += windows
        planned = Planned(
            video=video.id,
            segments=len(todo),
            groups=groups,
            kept=len(kept),
            problems=problems,
            windows=tuple(done),
            fingerprint=timeline.info.fingerprint,
            seconds=_seconds(timeline),
        )
        yield encode(planned)
        written = tuple(tuple(sorted(_windows(names))) for names in files)
        for unit in todo:
            yield encode_segment(unit, SegmentContext(groups, written, timeline.named_by_index))

    def _answered(self, request: AnnotationRequest, fingerprint: str) -> tuple[set[str], tuple[str, ...]]:
        """Returns the ids of the expressions already answered for this version of the file, and the conflicts.

        A conflict is an answered id that now has another text. Results of other versions of the file are deleted.
        """
        kept: dict[str, str] = {}
        for name in request.markers:
            marker = read_marker(self.out, f"{DONE}/{name}")
            group = ExpressionGroup(marker.video, marker.name, ())
            remove_windows(self.out, group)  # a run that was killed may have left some
            if marker.fingerprint == fingerprint and self.out.has(group.result):
                kept |= dict(marker.sentences)
            else:
                remove_file(self.out, group.result)
                remove_file(self.out, group.marker)
        problems = tuple(
            f"the expression {one.id!r} was {kept[one.id]!r} and is now {one.text!r}. Give it another id, or choose "
            f"another --out."
            for one in request.expressions
            if kept.get(one.id, one.text) != one.text
        )
        return set(kept), problems

    def _groups(self, video: Video, fingerprint: str, left: Sequence[Expression]) -> tuple[ExpressionGroup, ...]:
        """Returns the groups of the expressions that are left: unfinished ones of earlier runs, and one new group.

        Unfinished groups that do not fit the video, the settings or the expressions any more are deleted.
        """
        groups: list[ExpressionGroup] = []
        ungrouped = set(left)
        for name in self.out.names(f"{WINDOWS}/{video.id}"):
            folder = f"{WINDOWS}/{video.id}/{name}"
            group = read_group(self.out, folder)
            same = group and group == expression_group(video.id, fingerprint, self.fingerprint, group.expressions)
            if group and same and set(group.expressions) <= ungrouped:
                groups.append(group)
                ungrouped -= set(group.expressions)
            else:
                remove_file(self.out, f"{PREDICTIONS}/{video.id}-{name}.parquet")
                self.out.remove_folder(folder)
        if ungrouped:
            group = expression_group(video.id, fingerprint, self.fingerprint, tuple(ungrouped))
            write_group(self.out, group)
            groups.append(group)
        return tuple(groups)


def _files(out: Folder, group: ExpressionGroup) -> set[str]:
    """Returns the names in the folder of a group."""
    return {name for name in out.names(group.folder) if not name.startswith(UNFINISHED)}


def _windows(names: set[str]) -> set[int]:
    """Returns the numbers of the windows among the names in the folder of a group."""
    return {int(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")}


def _done_windows(
    out: Folder, groups: Sequence[ExpressionGroup], files: Sequence[set[str]], number: int
) -> list[int] | None:
    """Returns the windows of a segment that is done for all groups; None if any of it is missing."""
    windows: list[int] = []
    for group, names in zip(groups, files, strict=True):
        path = group.segment(number)
        if path.rpartition("/")[2] not in names:
            return None
        windows = json.loads(out.read(path))
        if not set(windows) <= _windows(names):
            return None
    return windows


def _seconds(timeline: Timeline) -> float:
    """Returns the length of the video in seconds."""
    times = timeline.times
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (timeline.info.fps or 24.0)
    return float(times[-1] - times[0] + step)
