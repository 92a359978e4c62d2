"""A queue of lines in an object store: each addition is an object, which is removed once its lines are sent."""

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence

from pipelines.files import Folder
from pipelines.tracking.spool import Entry, entries_of

SUFFIX = ".jsonl"

log = logging.getLogger(__name__)


class ObjectSpool:
    """As `Spool`, for a folder where nothing can be appended to a file. Objects of a killed process come first.

    The position in an object is not stored: after a kill, its first lines are read again.

    Raises:
        OSError: the store cannot be reached; so do all methods but `ack`.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._guard = threading.Lock()
        self._names = deque(folder.names(suffix=SUFFIX))
        self._head: list[bytes] | None = None  # lines of the first object, once they are read
        self._offset = 0  # lines of it that are sent

    def append(self, lines: Sequence[bytes]) -> None:
        """Writes the lines, each with its newline, as one object."""
        name = f"{time.time_ns():020d}-{len(lines):06d}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        self.folder.write(name, b"".join(lines))
        with self._guard:
            self._names.append(name)

    def seal(self) -> None:
        """Does nothing: every object is whole."""

    def next(self, count: int) -> tuple[list[Entry], int]:
        """Returns the oldest entries, at most `count`, and the number of lines up to their end, for `ack`."""
        with self._guard:
            while self._names:
                if self._head is None:
                    self._head = self._lines(self._names[0])
                entries, offset = [], self._offset
                for line in self._head[offset:]:
                    offset += 1
                    entries += entries_of(line, self.folder.path(self._names[0]))
                    if len(entries) == count:
                        break
                if entries:
                    return entries, offset
                self._drop_head()
            return [], 0

    def ack(self, offset: int) -> None:
        """Marks the entries that `next` returned as sent."""
        with self._guard:
            self._offset = offset
            if self._head is not None and offset >= len(self._head):
                self._drop_head()

    def empty(self) -> bool:
        """Returns whether everything is sent."""
        with self._guard:
            return not self._names

    def left(self) -> int:
        """Returns the number of lines that are not sent."""
        with self._guard:
            return max(0, sum(int(name.split("-")[1]) for name in self._names) - self._offset)

    def entries(self) -> Iterator[Entry]:
        """Yields all entries that are not sent, and leaves them in place."""
        for name in list(self._names):
            for line in self._lines(name):
                yield from entries_of(line, self.folder.path(name))

    def refuse(self, entry: Entry, name: str) -> str:
        """Keeps an entry that will never be accepted. Returns where."""
        name = f"{uuid.uuid4().hex[:8]}-{name}"
        self.folder.write(name, json.dumps(entry).encode() + b"\n")
        return self.folder.path(name)

    def _lines(self, name: str) -> list[bytes]:
        return (self.folder.read_if_there(name) or b"").splitlines()

    def _drop_head(self) -> None:
        try:
            self.folder.remove(self._names[0], missing_ok=True)
        except OSError as error:  # the next start sends it again, which changes nothing
            log.warning("%s stays in %s, although it is sent: %s", self._names[0], self.folder.path(), error)
        self._names.popleft()
        self._head, self._offset = None, 0
