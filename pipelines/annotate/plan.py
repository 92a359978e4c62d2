"""The first stage of annotation: of a video, what is left to do, as segments that different workers take."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.annotate.expressions_file import Expression
from pipelines.annotate.layout import (
    BATCH,
    DONE,
    PLANS,
    WINDOWS,
    ExpressionGroup,
    batch_of,
    remove_file,
    remove_folder,
    remove_windows,
    video_of,
)
from pipelines.annotate.settings import WINDOWS_EACH, Settings
from pipelines.errors import BadItem
from pipelines.files import UNFINISHED, Folder
from pipelines.inference.messages import NEWS, parcel, segment_parcel
from pipelines.inference.quarantine import PREDICTIONS
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline
from pipelines.video.segments import DecodeUnit, segments
from pipelines.video.worker_decoder import decoder


@dataclass(frozen=True, slots=True)
class AnnotationRequest:
    """A video, all that is asked of it, and the names of the markers of what was answered."""

    video: Video
    sentences: tuple[Expression, ...]
    markers: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Plain text, to send to a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "AnnotationRequest":
        """What `to_json` wrote."""
        values = json.loads(text)
        sentences = tuple(Expression(**sentence) for sentence in values["sentences"])
        return cls(Video(**values["video"]), sentences, tuple(values["markers"]))


def markers_of(out: Folder) -> dict[str, list[str]]:
    """The names of all markers, by video."""
    found: dict[str, list[str]] = {}
    for name in out.names(DONE, ".json"):
        if not name.startswith(UNFINISHED):
            found.setdefault(video_of(name), []).append(name)
    return found


@dataclass(frozen=True, slots=True)
class PlanStage:
    """Videos → segments that are left to do, behind the news of what was planned.

    Attributes:
        out: folder of the run.
        fingerprint: of checkpoint and settings.
        time_limit: seconds.
        run: a name that no other run has.
    """

    out: Folder
    settings: Settings
    fingerprint: str
    time_limit: float
    run: str

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a piece of news or segment."""
        for text in batch["asked"].to_pylist():
            asked = AnnotationRequest.from_json(text)
            path = f"{PLANS}/{self.run}/{asked.video.id}.arrow"
            # Ray does a task again where a node died with what it gave, and expects the very same; but by now more of
            # the video may be done. So a plan holds for all of a run.
            if not self.out.has(path):
                self._keep(path, self._tried(asked))
            with self.out.open(path) as source:
                tables = [pa.Table.from_batches([part]) for part in pa.ipc.open_stream(source)]
            yield from tables

    def _keep(self, path: str, parcels: Sequence[pa.Table]) -> None:
        with self.out.output(path) as stream, pa.ipc.new_stream(stream, parcels[0].schema) as writer:
            for one in parcels:
                writer.write_table(one)

    def _tried(self, asked: AnnotationRequest) -> list[pa.Table]:
        """The parcels of a video, or the one that says why there are none."""
        try:
            return list(self._planned(asked))
        except BadItem as error:
            return [_failed(asked.video, error.stage, error.reason)]
        except (ValueError, MemoryError) as error:  # what a strange header can lead to
            return [_failed(asked.video, "decode", f"it cannot be planned ({type(error).__name__}: {error})")]

    def _planned(self, asked: AnnotationRequest) -> Iterator[pa.Table]:
        with decoder(self.time_limit) as one:
            info = one.probe(asked.video)
            kept, problems = self._done(asked, info.fingerprint)
            left = [sentence for sentence in asked.sentences if sentence.id not in kept]
            news = {"news": "planned", **_named(asked.video), "problems": problems}
            if not left:
                yield parcel(NEWS, {**news, "segments": 0, "batches": [], "kept": len(kept)})
                return
            timeline = one.timeline(asked.video, self.settings.shots)
        parts = segments(
            asked.video,
            timeline,
            fps=self.settings.fps,
            length=self.settings.window,
            overlap=self.settings.overlap,
            windows_each=WINDOWS_EACH,
        )
        batches = self._batches(asked.video, timeline.info.fingerprint, left)
        there = [_there(self.out, batch) for batch in batches]
        done: dict[int, list[int]] = {}
        todo: list[DecodeUnit] = []
        for part in parts:
            windows = _windows(self.out, batches, there, part.number)
            if windows is None:
                todo.append(part)
            else:
                done[part.number] = windows
        plain = [batch.to_plain() for batch in batches]
        yield parcel(
            NEWS,
            {
                **news,
                "kept": len(kept),
                "segments": len(todo),
                "windows": [window for windows in done.values() for window in windows],
                "batches": plain,
                "fingerprint": timeline.info.fingerprint,
                "seconds": _seconds(timeline),
            },
        )
        for part in todo:
            about = {"batches": plain, "there": [sorted(_numbers(names)) for names in there]}
            yield segment_parcel(part, {**about, "numbered": timeline.numbered})

    def _done(self, asked: AnnotationRequest, fingerprint: str) -> tuple[set[str], list[str]]:
        """Ids that were answered of the video as it is, and what is wrong with the question; what is stale, goes."""
        kept: dict[str, str] = {}
        for name in asked.markers:
            told = json.loads(self.out.read(f"{DONE}/{name}"))
            batch = ExpressionGroup.from_plain(told)
            remove_windows(self.out, batch)  # a run that was killed may have left some
            if told["fingerprint"] == fingerprint and self.out.has(batch.result):
                kept |= dict(told["sentences"])
            else:
                remove_file(self.out, batch.result)
                remove_file(self.out, batch.marker)
        problems = [
            f"the expression {one.id!r} was {kept[one.id]!r} and is now {one.text!r}. Give it another id, or choose "
            f"another --out."
            for one in asked.sentences
            if kept.get(one.id, one.text) != one.text
        ]
        return set(kept), problems

    def _batches(self, video: Video, fingerprint: str, left: Sequence[Expression]) -> list[ExpressionGroup]:
        """Batches that were begun and are still asked for go on; all other sentences make a new one."""
        found: list[ExpressionGroup] = []
        open_ = set(left)
        for name in self.out.names(f"{WINDOWS}/{video.id}"):
            folder = f"{WINDOWS}/{video.id}/{name}"
            begun = _begun(self.out, folder)
            same = begun and begun == batch_of(video.id, fingerprint, self.fingerprint, begun.sentences)
            if begun and same and set(begun.sentences) <= open_:
                found.append(begun)
                open_ -= set(begun.sentences)
            else:
                remove_file(self.out, f"{PREDICTIONS}/{video.id}-{name}.parquet")
                remove_folder(self.out, folder)
        if open_:
            fresh = batch_of(video.id, fingerprint, self.fingerprint, tuple(open_))
            self.out.write(f"{fresh.folder}/{BATCH}", json.dumps(fresh.to_plain()).encode())
            found.append(fresh)
        return found


def _begun(out: Folder, folder: str) -> ExpressionGroup | None:
    """The batch that a folder of windows was made for; None where a killed run did not get so far as to say."""
    return (
        ExpressionGroup.from_plain(json.loads(out.read(f"{folder}/{BATCH}"))) if out.has(f"{folder}/{BATCH}") else None
    )


def _there(out: Folder, batch: ExpressionGroup) -> set[str]:
    return {name for name in out.names(batch.folder) if not name.startswith(UNFINISHED)}


def _numbers(names: set[str]) -> set[int]:
    """The windows among the names in a batch's folder."""
    return {int(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")}


def _windows(
    out: Folder, batches: Sequence[ExpressionGroup], there: Sequence[set[str]], number: int
) -> list[int] | None:
    """The windows of a segment that is done for all batches; None where something of it is missing."""
    windows: list[int] = []
    for batch, names in zip(batches, there, strict=True):
        path = batch.segment(number)
        if path.rpartition("/")[2] not in names:
            return None
        windows = json.loads(out.read(path))
        if not set(windows) <= _numbers(names):
            return None
    return windows


def _seconds(timeline: Timeline) -> float:
    """How long the video is shown."""
    times = timeline.times
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (timeline.info.fps or 24.0)
    return float(times[-1] - times[0] + step)


def _named(video: Video) -> dict[str, Any]:
    return {"video": video.id, "path": video.path}


def _failed(video: Video, stage: str, reason: str) -> pa.Table:
    return parcel(NEWS, {"news": "failed", **_named(video), "stage": stage, "reason": reason})
