"""Answers to the sentences of a request: windows go to the replicas, tracks come out as lines or as a file."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.annotate.join import RowWriter
from pipelines.annotate.tracks import JoinSettings, join_windows
from pipelines.annotate.window_rows import WindowRow, window_row
from pipelines.exports.mask_zip import write_mask_zip
from pipelines.exports.overlay_video import write_overlay
from pipelines.exports.video_maps import write_video_maps
from pipelines.exports.writing import single
from pipelines.exports.youtube_vis import write_coco_frames, write_youtube_vis
from pipelines.files import Folder
from pipelines.ledger import PREDICTIONS, Entry, Rows
from pipelines.prediction_reader import read_predictions, read_segments
from pipelines.predictions import Prediction
from pipelines.records import Expression
from pipelines.serve.model_client import ModelClient, PendingReply
from pipelines.serve.opened_video import VIDEO_ID, OpenedVideo, in_decoder
from pipelines.serve.refusal import Refusal
from pipelines.serve.window_job import WindowJob
from pipelines.video.decoder import Window
from sgmg.masks import rle_to_coco

FileFormat = Literal["coco", "youtube-vis", "png", "davis", "overlay"]

FILES: dict[FileFormat, tuple[str, str]] = {
    "coco": ("coco.json", "application/json"),
    "youtube-vis": ("youtube_vis.json", "application/json"),
    "png": ("png.zip", "application/zip"),
    "davis": ("davis.zip", "application/zip"),
    "overlay": ("overlay.mp4", "video/mp4"),
}
"""Name and media type of the file of each format."""

_ROWS = "rows.parquet"


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request: what is asked, of which video.

    Attributes:
        request: its id.
        opened: the video.
        sentences: in the order of the request.
        min_score: score of a frame, below which its mask is empty.
        kept: id of the kept video whose encoded clips are used; empty for a video that is answered once.
    """

    request: str
    opened: OpenedVideo
    sentences: tuple[str, ...]
    min_score: float
    kept: str = ""

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The sentences, numbered from 0 in their order."""
        return tuple(Expression(f"{number:04d}", text) for number, text in enumerate(self.sentences))

    @property
    def join(self) -> JoinSettings:
        """Rules of how windows become tracks."""
        return JoinSettings(self.min_score, fingerprint="")


class Answering:
    """The windows of a request on their way through the replicas.

    Args:
        asked: the request.
        client: of the replicas.
        at_once: windows that replicas may work on at the same time.
        on_frames: called with the number of frames of each answered window.
    """

    def __init__(self, asked: Asked, client: ModelClient, at_once: int, on_frames: Callable[[int], None]) -> None:
        self.asked, self._client, self._at_once, self._on_frames = asked, client, at_once, on_frames

    def lines(self, windows: Iterable[Window]) -> Iterator[bytes]:
        """Yields the answer as NDJSON: what it is of, the masks of some frames at a time, and the tracks at the end.

        Raises:
            Refusal: a window cannot be decoded or answered.
        """
        asked, opened = self.asked, self.asked.opened
        tracks = [_Track() for _ in asked.sentences]
        yield _line({"video": opened.facts, "sentences": asked.sentences})
        step = max(1, opened.settings.window - opened.settings.overlap)
        for rows in join_windows(self.window_rows(windows), asked.join, length=step):
            for track, row in zip(tracks, rows, strict=True):
                track.add(row)
            yield b"".join(_lines_of_frames(rows))
        yield _line({"done": True, "tracks": [track.summary(place) for place, track in enumerate(tracks)]})

    def write(self, windows: Iterable[Window], format: FileFormat, folder: Path) -> Path:
        """Writes the answer as a file into an empty folder, and returns its path.

        Raises:
            Refusal: a window cannot be decoded or answered, or the format has no room for so many sentences.
        """
        asked, opened = self.asked, self.asked.opened
        out = Folder(str(folder))
        sentences = tuple((one.id, one.text) for one in asked.expressions)
        entry = Entry(VIDEO_ID, opened.name, "", opened.unit.info.fingerprint, sentences, seconds=opened.seconds)
        with out.output(f"{PREDICTIONS}/{_ROWS}") as stream, RowWriter(stream) as writer:
            written = writer.add(entry, self.window_rows(windows), asked.join)
        rows = (Rows(_ROWS, written.first_group, written.groups),)
        name, _ = FILES[format]
        if format == "overlay":
            with in_decoder():
                write_overlay(out, name, opened.video, read_segments(out, rows))
        elif format == "davis":
            write_video_maps({VIDEO_ID: rows}, out, name)
        else:
            writers = {"coco": write_coco_frames, "youtube-vis": write_youtube_vis, "png": write_mask_zip}
            writers[format](read_predictions(out), out, name)
        return folder / name

    def window_rows(self, windows: Iterable[Window]) -> Iterator[list[WindowRow]]:
        """Yields the rows of each window in order; sends some windows ahead, and takes them back if it is closed.

        Raises:
            Refusal: a window cannot be decoded or answered.
        """
        ahead: deque[tuple[Window, WindowJob, PendingReply]] = deque()
        try:
            with in_decoder():
                for window in windows:
                    ahead.append(self._sent(window))
                    if len(ahead) >= self._at_once:
                        yield self._rows(*ahead.popleft())
            while ahead:
                yield self._rows(*ahead.popleft())
        finally:
            for _, _, reply in ahead:
                reply.cancel()

    def _sent(self, window: Window) -> tuple[Window, WindowJob, PendingReply]:
        asked = self.asked
        clip = f"{asked.kept}/{window.number}-{window.shot}-{int(window.indices[0])}" if asked.kept else ""
        job = WindowJob(asked.request, asked.opened.model_frames(window, asked.expressions), clip)
        return window, job, self._client.send(job, asked.kept)

    def _rows(self, window: Window, job: WindowJob, reply: PendingReply) -> list[WindowRow]:
        got = reply.get()
        if got.problem:
            raise Refusal(500, f"The model could not answer: {got.problem}")
        self._on_frames(len(window.frames))
        return [window_row(job.frames.record, answer, "", window.note, window.remark) for answer in got.answers]


@dataclass(slots=True)
class _Track:
    """Summary of one sentence, for the last line."""

    total: float = 0.0
    frames: int = 0
    present: bool = False
    partial: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, row: Prediction) -> None:
        """Adds some frames."""
        self.total += sum(row.queries[0].scores)
        self.frames += len(row.frame_names)
        self.present |= row.status == "ok" or any(map(any, row.queries[0].boxes))
        self.partial |= row.status == "partial"
        self.notes += [row.note] if row.note else []

    def summary(self, sentence: int) -> dict[str, Any]:
        """Returns the track as the last line has it."""
        status = "partial" if self.partial else "ok" if self.present else "absent"
        score = single(self.total / self.frames) if self.frames else 0.0
        return {"sentence": sentence, "score": score, "status": status, "note": "; ".join(dict.fromkeys(self.notes))}


def _lines_of_frames(rows: Sequence[Prediction]) -> Iterator[bytes]:
    for t, time in enumerate(rows[0].timestamps or ()):
        for sentence, row in enumerate(rows):
            (query,) = row.queries
            box = [round(value, 2) for value in query.boxes[t]]
            yield _line(
                {
                    "frame": row.start_frame + t,
                    "time": round(time, 4),
                    "sentence": sentence,
                    "score": single(query.scores[t]),
                    "box": box if any(box) else None,
                    "rle": rle_to_coco(query.rle[t], (row.height, row.width)),
                }
            )


def _line(value: Any) -> bytes:
    """Returns a line in ASCII: some readers take U+2028 in a sentence for the end of a line."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
