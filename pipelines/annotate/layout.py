"""The files in a folder of annotations, and what remains there between two runs.

predictions/<video>-<group>.parquet   the result: rows of a video for some of its expressions
done/<video>-<group>.json             the marker: this result is complete
windows/<video>/<group>/…             windows of a video that is not finished; deleted when the result is complete
failed/<video>.json                   what could not be used
plans/<run>/<video>.arrow             what the current run has planned
written/<format>.json                 the results that a format, or an overlay, was made of
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pipelines.files import UNFINISHED, Folder
from pipelines.prediction_reader import PREDICTIONS
from pipelines.records import Expression

DONE, WINDOWS, WRITTEN, PLANS = "done", "windows", "written", "plans"
GROUP_FILE = "batch.json"
"""File in the folder of a group's windows: the group, as a `GroupFile`."""


@dataclass(frozen=True, slots=True)
class GroupFile:
    """An expression group as it is written to disk.

    Attributes:
        video: its id.
        name: of the group.
        sentences: id and text of each expression.
    """

    video: str
    name: str
    sentences: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExpressionGroup:
    """Expressions of one video that are answered together, in one file. Equal groups have equal names.

    Attributes:
        video: its id.
        name: a hash of the expressions, the video file and the settings.
        expressions: sorted by id.
    """

    video: str
    name: str
    expressions: tuple[Expression, ...]

    @property
    def stem(self) -> str:
        """Name of the result file, without suffix."""
        return f"{self.video}-{self.name}"

    @property
    def result(self) -> str:
        """Path of the result, in the folder of the run."""
        return f"{PREDICTIONS}/{self.stem}.parquet"

    @property
    def marker(self) -> str:
        """Path of the file that exists once the result is complete."""
        return f"{DONE}/{self.stem}.json"

    @property
    def folder(self) -> str:
        """Path of the folder that holds the windows until then."""
        return f"{WINDOWS}/{self.video}/{self.name}"

    def window(self, number: int) -> str:
        """Returns the path of the predictions of one window."""
        return f"{self.folder}/{number:08d}.parquet"

    def segment(self, number: int) -> str:
        """Returns the path of the file that lists the windows of a segment; it exists once the segment is decoded."""
        return f"{self.folder}/segment-{number:06d}.json"

    def to_file(self) -> GroupFile:
        """Returns the group as it is written to disk."""
        return GroupFile(self.video, self.name, tuple((one.id, one.text) for one in self.expressions))


def write_group(out: Folder, group: ExpressionGroup) -> None:
    """Writes the group into the folder of its windows, where `read_group` finds it."""
    out.write(f"{group.folder}/{GROUP_FILE}", msgspec.json.encode(group.to_file()))


def read_group(out: Folder, folder: str) -> ExpressionGroup | None:
    """Returns the group that a folder of windows was made for; None if a run was killed before it wrote that."""
    path = f"{folder}/{GROUP_FILE}"
    if not out.has(path):
        return None
    stored = msgspec.json.decode(out.read(path), type=GroupFile)
    return ExpressionGroup(stored.video, stored.name, tuple(Expression(*pair) for pair in stored.sentences))


def expression_group(
    video: str, video_fingerprint: str, settings_fingerprint: str, expressions: Sequence[Expression]
) -> ExpressionGroup:
    """Returns the group of some expressions, in any order.

    Args:
        video: its id.
        video_fingerprint: of the file as it is now.
        settings_fingerprint: of checkpoint and settings.
        expressions: id and text of each.
    """
    kept = tuple(sorted(expressions, key=lambda expression: expression.id))
    made_of = [video_fingerprint, settings_fingerprint, [[expression.id, expression.text] for expression in kept]]
    return ExpressionGroup(video, hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12], kept)


def video_of(name: str) -> str:
    """Returns the video id in the name of a result or marker.

    >>> video_of("clip-d9d1332cf7-0123456789ab.parquet")
    'clip-d9d1332cf7'
    """
    return name.rpartition("-")[0]


def results_of(out: Folder) -> dict[str, list[str]]:
    """Returns the names of the files in predictions/, by video."""
    return _by_video(out, PREDICTIONS, ".parquet")


def markers_of(out: Folder) -> dict[str, list[str]]:
    """Returns the names of the markers in done/, by video."""
    return _by_video(out, DONE, ".json")


def _by_video(out: Folder, folder: str, suffix: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in out.names(folder, suffix):
        if not name.startswith(UNFINISHED):
            names.setdefault(video_of(name), []).append(name)
    return names


def remove_file(out: Folder, name: str) -> None:
    """Deletes a file of the run, if it exists."""
    if out.has(name):
        out.remove(name)


def remove_windows(out: Folder, group: ExpressionGroup) -> None:
    """Deletes the windows of a finished group, and the folder of its video if that is then empty."""
    out.remove_folder(group.folder)
    above = group.folder.rpartition("/")[0]
    if not out.names(above):
        out.remove_folder(above)
