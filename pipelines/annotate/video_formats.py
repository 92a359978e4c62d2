"""The formats of annotation that have a file or folder of their own for each video: frames, overlays and CVAT's XML."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import msgspec

from pipelines.annotate.layout import WRITTEN
from pipelines.annotate.settings import FormatName
from pipelines.errors import BadItem, Failure
from pipelines.exports.cvat import CVAT, write_cvat
from pipelines.exports.frame_files import FRAMES, SUFFIX, write_frames
from pipelines.exports.overlay_video import write_overlay
from pipelines.files import Folder, at_once
from pipelines.inference.quarantine import write_failures
from pipelines.ledger import Ledger, Rows
from pipelines.prediction_reader import read_segments
from pipelines.predictions import Prediction
from pipelines.video.frames_by_name import video_of_prediction

OVERLAY = "overlay"
"""Folder, in that of a run, of the overlays."""
_BEGUN = ".begun"
"""Suffix of the note of a video whose frames are being written."""


@dataclass(frozen=True, slots=True)
class FramesNote:
    """A note about the frames of a video that are written.

    Attributes:
        fingerprint: of the video that they are of.
        digest: of the rows that they were written for.
        frames: how many files there are.
    """

    fingerprint: str
    digest: str = ""
    frames: int = 0


def write_one_overlay(out: Folder, video: str, rows: Sequence[Rows], digest: str, time_limit: float) -> str:
    """Writes the overlay of one video, unless its rows have not changed; a failure goes to the failure notes.

    Args:
        out: folder of the run.
        video: id.
        rows: where they are.
        digest: of the rows.
        time_limit: seconds without a heartbeat of the decoder, after which the overlay fails.

    Returns:
        A line for the log.
    """
    path = f"{OVERLAY}/{video}.mp4"
    if not is_written(out, f"{OVERLAY}-{video}", path, digest):
        first, parts = _segments(out, rows)
        failures: list[Failure] = []
        try:
            write_overlay(out, path, video_of_prediction(first.source), parts, time_limit=time_limit)
            out.write(f"{WRITTEN}/{OVERLAY}-{video}.json", json.dumps(digest).encode())
        except BadItem as error:
            failures.append(Failure(first.source, OVERLAY, error.reason))
        write_failures(out, f"{video}-{OVERLAY}", failures)
    return f"overlay of {video}"


def write_one_video_frames(out: Folder, video: str, rows: Sequence[Rows], digest: str, time_limit: float) -> str:
    """Writes the frames of one video that are missing; a failure goes to the failure notes.

    Frames of another version of the video, which were noted as such, are deleted first. Arguments and result are those
    of `write_one_overlay`.
    """
    folder = f"{FRAMES}/{video}"
    present = out.names(folder, SUFFIX)
    note = frames_note(out, video)
    if not (note and note.digest == digest and note.frames == len(present)):
        first, parts = _segments(out, rows)
        begun = _read_note(out, f"{WRITTEN}/{FRAMES}-{video}{_BEGUN}")
        if begun and begun.fingerprint != first.source_fingerprint:
            out.remove_folder(folder)
        if not begun or begun.fingerprint != first.source_fingerprint:
            present = []  # files that no note tells of are written over
        out.remove(f"{WRITTEN}/{FRAMES}-{video}.json", missing_ok=True)
        _write_note(out, f"{WRITTEN}/{FRAMES}-{video}{_BEGUN}", FramesNote(first.source_fingerprint))
        out.remove_unfinished(folder)
        failures: list[Failure] = []
        try:
            stems = [name.removesuffix(SUFFIX) for name in present]
            source = video_of_prediction(first.source)
            written = write_frames(out, video, source, parts, stems, time_limit=time_limit)
            done = FramesNote(first.source_fingerprint, digest, len(present) + written)
            _write_note(out, f"{WRITTEN}/{FRAMES}-{video}.json", done)
        except BadItem as error:
            failures.append(Failure(first.source, FRAMES, error.reason))
        write_failures(out, f"{video}-{FRAMES}", failures)
    return f"frames of {video}"


def write_one_cvat(out: Folder, video: str, rows: Sequence[Rows], digest: str, _time_limit: float) -> str:
    """Writes the XML of one video, unless its rows have not changed. Arguments and result as of `write_one_overlay`."""
    path = f"{CVAT}/{video}.xml"
    if not is_written(out, f"{CVAT}-{video}", path, digest):
        _, parts = _segments(out, rows)
        write_cvat(out, path, video, parts)
        out.write(f"{WRITTEN}/{CVAT}-{video}.json", json.dumps(digest).encode())
    return f"CVAT's XML of {video}"


OF_EACH_VIDEO: dict[FormatName, Callable[[Folder, str, Sequence[Rows], str, float], str]] = {
    "frames": write_one_video_frames,
    "cvat": write_one_cvat,
    "overlay": write_one_overlay,
}
"""The function that writes a format of one video."""


def is_written(out: Folder, note: str, path: str, digest: str) -> bool:
    """Returns whether a file is there, and was made of what has this digest."""
    noted = out.read_if_there(f"{WRITTEN}/{note}.json")
    return noted is not None and json.loads(noted) == digest and out.has(path)


def frames_note(out: Folder, video: str) -> FramesNote | None:
    """Returns the note about the frames of a video; None if they are not all written."""
    return _read_note(out, f"{WRITTEN}/{FRAMES}-{video}.json")


def videos_with_frames(out: Folder, ledger: Ledger) -> frozenset[str]:
    """Returns the videos whose predicted frames are all in the folder of the run, of the version that was predicted."""
    names = set(out.names(WRITTEN, ".json"))
    noted = [video for video in ledger.rows if f"{FRAMES}-{video}.json" in names]
    notes = at_once(lambda video: frames_note(out, video), noted)
    return frozenset(
        video
        for video, note in zip(noted, notes, strict=True)
        if note and note.fingerprint in {one.fingerprint for one in ledger.by_video[video]}
    )


def _segments(out: Folder, rows: Sequence[Rows]) -> tuple[Prediction, Iterator[list[Prediction]]]:
    """Returns a row of a video, and all its segments."""
    parts = (part for part in read_segments(out, rows) if part)
    first = next(parts)
    return first[0], chain([first], parts)


def _read_note(out: Folder, path: str) -> FramesNote | None:
    noted = out.read_if_there(path)
    return None if noted is None else msgspec.json.decode(noted, type=FramesNote)


def _write_note(out: Folder, path: str, note: FramesNote) -> None:
    out.write(path, json.dumps(asdict(note)).encode())
