"""The files in a folder of annotations, beside the ledger, and what remains there between two runs.

predictions/<shard>.parquet           a result: rows of some short videos, or of one long video for a group of sentences
windows/<video>/<group>/…             windows of a long video that is not finished; deleted when its result is complete
failed/…                              what could not be listed, and frames and overlays that failed
plans/<run>/<chunk>.arrow             what the current run has planned
written/<format>.json                 the results that a format was made of
written/<format>-<video>.json         the same, of a format with a file or folder for each video
written/frames-<video>.begun          the version of the video that its frames are of
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pipelines.files import Folder
from pipelines.records import Expression

WINDOWS, WRITTEN, PLANS = "windows", "written", "plans"
GROUP_FILE = "group.json"
"""File in the folder of a group's windows: the group, as a `GroupFile`."""
PARTIAL = "-partial"
"""Mark in the name of a stretch that lacks windows: it is predicted again."""
SENTENCES_EACH = 64
"""Most sentences of a group: what a join holds in memory grows with them."""


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
    """Expressions of one video that are answered together. Equal groups have equal names.

    Attributes:
        video: its id.
        name: a hash of the expressions, the video file and the settings.
        expressions: sorted by id.
    """

    video: str
    name: str
    expressions: tuple[Expression, ...]

    @property
    def sentences(self) -> tuple[tuple[str, str], ...]:
        """Id and text of each expression."""
        return tuple((one.id, one.text) for one in self.expressions)

    @property
    def file(self) -> str:
        """Name of the result file of a long video."""
        return f"{self.video}-{self.name}.parquet"

    @property
    def folder(self) -> str:
        """Path of the folder that holds the windows of a long video until its result is complete."""
        return f"{WINDOWS}/{self.video}/{self.name}"

    def stretch(self, number: int, whole: bool = True) -> str:
        """Returns the path of the predictions of some consecutive windows; of those that there are, if not whole."""
        return f"{self.folder}/{number:06d}{'' if whole else PARTIAL}.parquet"

    def to_file(self) -> GroupFile:
        """Returns the group as it is written to disk."""
        return GroupFile(self.video, self.name, self.sentences)


def write_group(out: Folder, group: ExpressionGroup) -> None:
    """Writes the group into the folder of its windows, where `read_group` finds it."""
    out.write(f"{group.folder}/{GROUP_FILE}", msgspec.json.encode(group.to_file()))


def read_group(out: Folder, folder: str) -> ExpressionGroup | None:
    """Returns the group that a folder of windows was made for; None if a run was killed before it wrote that."""
    written = out.read_if_there(f"{folder}/{GROUP_FILE}")
    if written is None:
        return None
    stored = msgspec.json.decode(written, type=GroupFile)
    return ExpressionGroup(stored.video, stored.name, tuple(Expression(*pair) for pair in stored.sentences))


def expression_groups(
    video: str, video_fingerprint: str, settings_fingerprint: str, expressions: Sequence[Expression]
) -> tuple[ExpressionGroup, ...]:
    """Returns the groups of some expressions, given in any order.

    Args:
        video: its id.
        video_fingerprint: of the file as it is now.
        settings_fingerprint: of checkpoint and settings.
        expressions: id and text of each.
    """
    ordered = sorted(expressions, key=lambda expression: expression.id)
    return tuple(
        _group(video, [video_fingerprint, settings_fingerprint], tuple(some))
        for some in (ordered[first : first + SENTENCES_EACH] for first in range(0, len(ordered), SENTENCES_EACH))
    )


def _group(video: str, made_of: list[str], expressions: tuple[Expression, ...]) -> ExpressionGroup:
    text = json.dumps([*made_of, [[expression.id, expression.text] for expression in expressions]])
    return ExpressionGroup(video, hashlib.sha256(text.encode()).hexdigest()[:12], expressions)


def stretches_of(out: Folder, group: ExpressionGroup) -> set[int]:
    """Returns the numbers of the stretches of a long video that are predicted whole."""
    stems = (name.removesuffix(".parquet") for name in stretch_files(out, group))
    return {int(stem) for stem in stems if not stem.endswith(PARTIAL)}


def stretch_files(out: Folder, group: ExpressionGroup) -> list[str]:
    """Returns the names of the files of the stretches of a group, in order, each stretch once."""
    names = out.names(group.folder, ".parquet")
    return [name for name in names if name.replace(PARTIAL, "") == name or name.replace(PARTIAL, "") not in names]


def remove_windows(out: Folder, group: ExpressionGroup) -> None:
    """Deletes the windows of a finished group, and the folder of its video if that is then empty."""
    out.remove_folder(group.folder)
    above = group.folder.rpartition("/")[0]
    if not out.is_object_store and not out.names(above):
        out.remove_folder(above)
