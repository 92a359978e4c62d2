"""The names in a folder of annotations, and what lies there between two runs.

predictions/<video>-<batch>.parquet   the result: rows of a video for some of its sentences
done/<video>-<batch>.json             says that this result is whole
windows/<video>/<batch>/…             what is done of a video so far; gone when the result is there
failed/<video>.json                   what could not be used
plans/<run>/<video>.arrow             what a run that goes on has planned
written/<format>.json                 what a format, or an overlay, was made of
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from pipelines.annotate.expressions_file import Expression
from pipelines.files import UNFINISHED, Folder, resolve_filesystem
from pipelines.inference.quarantine import PREDICTIONS

DONE, WINDOWS, WRITTEN, PLANS = "done", "windows", "written", "plans"
BATCH = "batch.json"


@dataclass(frozen=True, slots=True)
class ExpressionGroup:
    """Sentences of one video that are answered together, in one file. Equal batches have equal names."""

    video: str  # its id
    name: str
    sentences: tuple[Expression, ...]

    @property
    def stem(self) -> str:
        """The name of its result, without ending."""
        return f"{self.video}-{self.name}"

    @property
    def result(self) -> str:
        """Its rows, in the folder of the run."""
        return f"{PREDICTIONS}/{self.stem}.parquet"

    @property
    def marker(self) -> str:
        """What is there once its rows are whole."""
        return f"{DONE}/{self.stem}.json"

    @property
    def folder(self) -> str:
        """Where its windows are kept until then."""
        return f"{WINDOWS}/{self.video}/{self.name}"

    def window(self, number: int) -> str:
        """The result of one window."""
        return f"{self.folder}/{number:08d}.parquet"

    def segment(self, number: int) -> str:
        """What is there once a segment was decoded to its end: which windows it has."""
        return f"{self.folder}/segment-{number:06d}.json"

    def to_plain(self) -> dict[str, Any]:
        """Plain values, to send to a worker or to keep."""
        texts = [[sentence.id, sentence.text] for sentence in self.sentences]
        return {"video": self.video, "name": self.name, "sentences": texts}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "ExpressionGroup":
        """The batch that `to_plain` described."""
        return cls(values["video"], values["name"], tuple(Expression(*pair) for pair in values["sentences"]))


def batch_of(
    video: str, video_fingerprint: str, settings_fingerprint: str, sentences: Sequence[Expression]
) -> ExpressionGroup:
    """The batch of some sentences, in any order, of a video as it is now, under these settings."""
    kept = tuple(sorted(sentences, key=lambda sentence: sentence.id))
    made_of = [video_fingerprint, settings_fingerprint, [[sentence.id, sentence.text] for sentence in kept]]
    return ExpressionGroup(video, hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12], kept)


def video_of(name: str) -> str:
    """The video id in the name of a result or marker.

    >>> video_of("clip-d9d1332cf7-0123456789ab.parquet")
    'clip-d9d1332cf7'
    """
    return name.rpartition("-")[0]


def results_of(out: Folder) -> dict[str, list[str]]:
    """Names of the files in predictions/, by video."""
    found: dict[str, list[str]] = {}
    for name in out.names(PREDICTIONS, ".parquet"):
        if not name.startswith(UNFINISHED):
            found.setdefault(video_of(name), []).append(name)
    return found


def remove_file(out: Folder, name: str) -> None:
    """Deletes a file of ours if it is there."""
    if out.has(name):
        out.remove(name)


def remove_folder(out: Folder, name: str) -> None:
    """Deletes a folder of ours with all that is in it, if it is there."""
    filesystem, path = resolve_filesystem(out.folder(name).uri)
    if filesystem.get_file_info(path).type == fs.FileType.Directory:
        with suppress(FileNotFoundError):  # another worker was faster
            filesystem.delete_dir(path)


def remove_windows(out: Folder, batch: ExpressionGroup) -> None:
    """Deletes the windows of a batch that is done; and the folder of its video, if that was all."""
    remove_folder(out, batch.folder)
    above = batch.folder.rpartition("/")[0]
    if not out.names(above):
        remove_folder(out, above)
