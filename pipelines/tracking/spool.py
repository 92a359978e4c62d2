"""A queue of lines on disk: one thread appends, another reads, and lines that were sent are removed."""

import io
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

SEGMENT_BYTES = 1 << 20
"""Size at which a file of lines is closed, in bytes. It is removed once all its lines are sent."""

log = logging.getLogger(__name__)


class Spool:
    """JSON lines in files of a folder, oldest first. Lines that a killed process left there come before new ones.

    The position in a file is not stored: after a kill, its first lines are read again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._guard = threading.Lock()
        self._segments = deque(sorted(folder.glob("*.jsonl")))
        self._stream: io.FileIO | None = None  # writes to the last segment
        self._size = 0  # bytes of that
        self._offset = 0  # bytes of the first segment that are sent

    def append(self, lines: Sequence[bytes]) -> None:
        """Appends lines, each with its newline.

        Raises:
            OSError: the disk is full, or permission is denied.
        """
        try:
            stream = self._stream or self._new_segment()
            view = memoryview(b"".join(lines))
            while view:
                view = view[stream.write(view) :]
        except OSError:
            self.seal()  # the file may end within a line, so nothing may follow
            raise
        with self._guard:
            self._size = stream.tell()
        if self._size > SEGMENT_BYTES:
            self.seal()

    def seal(self) -> None:
        """Closes the current file; the next line starts another."""
        with self._guard:
            if self._stream:
                self._stream.close()
            self._stream = None

    def next(self, count: int) -> tuple[list[Entry], int]:
        """Returns the oldest entries, at most `count`, and the offset of their end in the first file, for `ack`."""
        with self._guard:
            while self._segments:
                path, entries, offset = self._segments[0], [], self._offset
                for line in _lines(path, offset):
                    offset += len(line)
                    entries += entries_of(line, str(path))
                    if len(entries) == count:
                        break
                if entries or self._writing(path):
                    return entries, offset
                self._segments.popleft()
                self._offset = 0
                _remove(path, offset)
            return [], 0

    def ack(self, offset: int) -> None:
        """Marks the entries that `next` returned as sent."""
        with self._guard:
            self._offset = offset

    def empty(self) -> bool:
        """Returns whether everything is sent and its files are removed."""
        with self._guard:
            if not self._segments:
                return True
            return len(self._segments) == 1 and self._writing(self._segments[0]) and self._offset >= self._size

    def left(self) -> int:
        """Returns the number of lines that are not sent."""
        with self._guard:
            return sum(
                sum(1 for _ in _lines(path, self._offset if index == 0 else 0))
                for index, path in enumerate(self._segments)
            )

    def entries(self) -> Iterator[Entry]:
        """Yields all entries that are not sent, and leaves them in place."""
        for path in list(self._segments):
            for line in _lines(path, 0):
                yield from entries_of(line, str(path))

    def refuse(self, entry: Entry, name: str) -> str:
        """Appends an entry that will never be accepted to a file of that name. Returns its path."""
        with (self.folder / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        return str(self.folder / name)

    def _writing(self, path: Path) -> bool:
        return self._stream is not None and path == self._segments[-1]

    def _new_segment(self) -> io.FileIO:
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
        stream = io.FileIO(path, "x")
        with self._guard:
            self._stream, self._size = stream, 0
            self._segments.append(path)
        return stream


def _lines(path: Path, offset: int) -> Iterator[bytes]:
    """Yields the whole lines from an offset on, without a last one that was cut short when its writer was killed."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                if line.endswith(b"\n"):
                    yield line
    except FileNotFoundError:
        return  # another process has sent it


def entries_of(line: bytes, path: str) -> list[Entry]:
    """Returns the entry of a line; none, with a warning, if the line is damaged."""
    try:
        return [json.loads(line)]
    except ValueError:
        log.warning("a damaged line of %s is lost: %r", path, line[:80])
        return []


def _remove(path: Path, read: int) -> None:
    if path.exists() and (cut := path.stat().st_size - read):
        log.warning("the last %d bytes of %s were cut short and are lost", cut, path)
    path.unlink(missing_ok=True)
