"""The ledger of an annotation: which sentences of which videos are answered, and where their rows are.

Every result file carries the entries of its videos in its footer. `ledger.json.gz` is a copy of all entries that count,
so that a run over a finished corpus reads one file; results that the copy does not name yet are read for their footers.
Losing the copy loses nothing.
"""

import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec
import pyarrow.parquet as pq

from pipelines.errors import DamagedFile, Failure, JobError
from pipelines.files import Folder, at_once, damaged_file
from pipelines.safety.limits import MAX_LEDGER_BYTES

PREDICTIONS, LEDGER = "predictions", "ledger.json.gz"
"""Folder of the result files and the file of the ledger, inside the folder of a run."""
LEDGER_VERSION = 1
_FOOTER = b"sgmg.entries"

_BROKEN = re.compile("thrift|parquet|magic|corrupt|flatbuffer|schema|checksum|end of stream", re.IGNORECASE)
"""Errors of pyarrow that are surely about the content of a file."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """The rows of one video for some sentences, or why there are none.

    Attributes:
        video: id.
        path: of the video.
        stamp: size and time of the file when it was listed; equal stamps need no second look at the file.
        fingerprint: of the content of the file.
        sentences: id and text of each that the rows answer.
        first_group, groups: where the rows are in the file: the first row group, and how many.
        frames, seconds: length of the video.
        absent: sentences whose object is in no frame.
        damage: which parts of the video are missing; empty if none is.
        remark: what was decided in reading it; empty if nothing.
        agreements: for each of the sentences, the lowest IoU of a window's mask with that of the window before; None
            where windows share no mask. Empty if none do.
        failures: what goes into the quarantine.
        superseded: ids of those sentences that another entry answers better; readers skip their rows.
        file: name of the result file; empty without rows, and in the footer of that file.
    """

    video: str
    path: str
    stamp: str
    fingerprint: str
    sentences: tuple[tuple[str, str], ...]
    first_group: int = 0
    groups: int = 0
    frames: int = 0
    seconds: float = 0.0
    absent: int = 0
    damage: str = ""
    remark: str = ""
    agreements: tuple[float | None, ...] = ()
    failures: tuple[Failure, ...] = ()
    superseded: tuple[str, ...] = ()
    file: str = ""

    @property
    def final(self) -> bool:
        """Whether the sentences are answered, as well as the file allows; else the next run tries again."""
        return self.groups > 0 and not self.failures


class Rows(NamedTuple):
    """Location of the rows of one video.

    Attributes:
        file: name of the result file.
        first, groups: the first row group, and how many; there is one for each segment of the video.
        without: ids of the sentences whose rows do not count.
    """

    file: str
    first: int
    groups: int
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The content of ledger.json.gz: size in bytes of each result file that was read, and the entries that count."""

    version: int
    settings: str
    files: Mapping[str, int]
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class Ledger:
    """The entries of a folder of annotations, by video.

    Attributes:
        settings: fingerprint of checkpoint and settings.
        files: size in bytes of each result file.
        by_video: entries by the id of their video.
    """

    settings: str
    files: dict[str, int] = field(default_factory=dict)
    by_video: dict[str, list[Entry]] = field(default_factory=dict)

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries, sorted by video and file."""
        for video in sorted(self.by_video):
            yield from sorted(self.by_video[video], key=lambda one: (one.file, one.first_group))

    @property
    def rows(self) -> dict[str, tuple[Rows, ...]]:
        """Location of the rows of each video, by id."""
        return {
            video: rows
            for video, entries in sorted(self.by_video.items())
            if (rows := tuple(sorted(_rows(one) for one in entries if one.groups)))
        }

    def add(self, file: str, size: int, entries: Iterable[Entry]) -> None:
        """Adds a result file with its entries, and entries without rows, for which there may be no file."""
        if file:
            self.files[file] = size
        for one in entries:
            self.by_video.setdefault(one.video, []).append(replace(one, file=file if one.groups else ""))

    def answered(self, video: str, fingerprint: str | None = None, stamp: str | None = None) -> dict[str, str]:
        """Returns id and text of the sentences that are answered for one version of a video."""
        return {
            id: text
            for one in self.by_video.get(video, ())
            if one.final and fingerprint in (None, one.fingerprint) and stamp in (None, one.stamp)
            for id, text in one.sentences
        }

    def settle(self, video: str, fingerprint: str, stamp: str) -> None:
        """Keeps what counts of a video that was looked at: entries of this version, and of equal sentences the best."""
        kept: list[Entry] = []
        done: set[str] = set()
        same = [one for one in self.by_video.get(video, ()) if one.fingerprint == fingerprint]
        for one in sorted(same, key=lambda one: (not one.final, not one.groups, one.file)):
            ids = {id for id, _ in one.sentences}
            if not ids <= done or not ids:
                kept.append(replace(one, stamp=stamp, superseded=tuple(sorted(ids & done))))
                done |= ids
        if kept:
            self.by_video[video] = kept
        else:
            self.by_video.pop(video, None)

    def forget_failures(self, video: str) -> None:
        """Drops what an earlier run noted of a video that could not be read."""
        left = [one for one in self.by_video.get(video, ()) if one.fingerprint]
        self.by_video[video] = left

    def write(self, out: Folder) -> None:
        """Writes ledger.json.gz, and deletes result files of which nothing counts any more."""
        snapshot = _Snapshot(LEDGER_VERSION, self.settings, self.files, tuple(self.entries))
        used = {one.file for one in snapshot.entries}
        unused = [name for name in self.files if name not in used]
        files = {name: size for name, size in sorted(self.files.items()) if name in used}
        data = msgspec.json.encode(replace(snapshot, files=files))
        out.write(LEDGER, gzip.compress(data, compresslevel=1, mtime=0))  # a tenth: 100 000 videos are one PUT
        for name in unused:
            out.remove(f"{PREDICTIONS}/{name}")
        self.files = files


def _rows(entry: Entry) -> Rows:
    return Rows(entry.file, entry.first_group, entry.groups, entry.superseded)


def read_ledger(out: Folder, settings: str | None = None) -> Ledger:
    """Returns the entries of all result files; reads those files that ledger.json does not name, or has other sizes of.

    A result that cannot be read is deleted, so that its videos are done again.

    Args:
        out: folder of the run.
        settings: fingerprint of checkpoint and settings; None takes any.

    Raises:
        JobError: the ledger is of a newer version of this code.
    """
    found = out.files(PREDICTIONS, ".parquet")
    known = _read_snapshot(out, settings)
    ledger = Ledger(known.settings)
    for one in known.entries:
        if found.get(one.file) == known.files.get(one.file):
            ledger.by_video.setdefault(one.video, []).append(one)
    ledger.files = {name: size for name, size in known.files.items() if found.get(name) == size}
    new = [name for name in sorted(found) if name not in ledger.files]
    for name, entries in zip(new, at_once(lambda name: _footer_if_whole(out, name), new), strict=True):
        if entries is not None:
            ledger.add(name, found[name], entries)
    return ledger


def add_footer(writer: pq.ParquetWriter, entries: Iterable[Entry]) -> None:
    """Adds the entries of a result file to its footer."""
    writer.add_key_value_metadata({_FOOTER: msgspec.json.encode(list(entries))})


def _read_snapshot(out: Folder, settings: str | None) -> _Snapshot:
    nothing = _Snapshot(LEDGER_VERSION, settings or "", {}, ())
    packed = out.read_if_there(LEDGER)
    if packed is None:
        return nothing
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            data = stream.read(MAX_LEDGER_BYTES + 1)
        if len(data) > MAX_LEDGER_BYTES:
            raise ValueError(f"more than {MAX_LEDGER_BYTES} bytes")
        version = msgspec.json.decode(data, type=dict[str, msgspec.Raw])["version"]
        if int(bytes(version)) > LEDGER_VERSION:
            raise JobError(
                f"{out.path(LEDGER)} has version {bytes(version).decode()}, this code reads {LEDGER_VERSION}. Use the "
                f"newer code, or delete the file: it is made again from the results."
            )
        snapshot = msgspec.json.decode(data, type=_Snapshot)
    except (gzip.BadGzipFile, EOFError, zlib.error, msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        _log.warning("%s is damaged (%s): it is made again from the results.", out.path(LEDGER), error)
        return nothing
    if snapshot.version != LEDGER_VERSION or settings not in (None, snapshot.settings):
        _log.warning("%s is of other settings or code: it is made again from the results.", out.path(LEDGER))
        return nothing
    return snapshot


def read_footer(out: Folder, file: str) -> list[Entry]:
    """Returns the entries in the footer of a result file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is damaged.
    """
    path = f"{PREDICTIONS}/{file}"
    try:
        with out.parquet(path) as parquet:
            footer = (parquet.metadata.metadata or {})[_FOOTER]
        return msgspec.json.decode(footer, type=list[Entry])
    except (KeyError, RecursionError, msgspec.DecodeError) as error:
        raise damaged_file(out.path(path), f"its entries cannot be read: {error!r}") from error


def _footer_if_whole(out: Folder, file: str) -> list[Entry] | None:
    """Returns the entries of a result file; deletes it and returns None if it is damaged."""
    try:
        return read_footer(out, file)
    except DamagedFile as error:
        if isinstance(error.__cause__, OSError | MemoryError) and not _BROKEN.search(str(error.__cause__)):
            raise  # perhaps of the storage: deleting a whole file would lose work
        _log.warning("%s: it is deleted, and its videos are done again.", error)
        out.remove(f"{PREDICTIONS}/{file}")
        return None
