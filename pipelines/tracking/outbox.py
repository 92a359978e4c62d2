"""An outbox for a server that may be down: entries are written to disk, and sent in order until the server has them."""

import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.files import Folder
from pipelines.tracking.object_spool import ObjectSpool
from pipelines.tracking.reasons import reason_of
from pipelines.tracking.spool import Entry, Spool

REFUSED = "refused.txt"

log = logging.getLogger(__name__)


class Refused(Exception):
    """Error of a server that answers, and will never accept these entries."""


class Outbox:
    """A queue that accepts entries without waiting; one thread writes them to disk, another sends them, in order.

    Entries that a killed process left in the folder are sent first, and those of its last file once more: `send` must
    accept repeated entries. A folder has one outbox at a time.

    Args:
        folder: on a disk or in an object store; created if it is missing.
        send: sends entries, or raises. After `Refused` they are stored in a file, after any other error sent again.
        what: names the entries and their destination, for messages.
        batch_size: largest number of entries in one call of `send`.
        capacity: largest number of entries in memory while the disk is slow.
        linger: seconds between two calls of `send`, in which entries gather.
        max_backoff: longest wait between two attempts while the server is down, in seconds.
    """

    def __init__(
        self,
        folder: Folder,
        send: Callable[[list[Entry]], None],
        what: str,
        *,
        batch_size: int = 100,
        capacity: int = 10_000,
        linger: float = 1.0,
        max_backoff: float = 30.0,
    ) -> None:
        self._spool = open_spool(folder)
        self._send, self._what, self._place = send, what, folder.path()
        self._batch_size, self._linger, self._max_backoff = batch_size, linger, max_backoff
        self._queue: queue.Queue[bytes | None] = queue.Queue(capacity)  # lines; None ends it
        self._changed = threading.Condition()  # guards all below
        self._unwritten: deque[bytes] = deque(maxlen=capacity)  # lines that could not be written
        self._lost = self._refused = 0
        self._attempts = self._last_failed = 0  # numbers of the last one that was begun, and of the last that failed
        self._flush_requested = self._stopping = self._written = self._away = self._disk_failed = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._keep_writing, self._keep_sending)]
        for thread in self._threads:
            thread.start()

    def put(self, entry: Entry) -> None:
        """Adds an entry of plain values; never waits. If the disk hangs for long, entries are lost and counted."""
        line = json.dumps(entry).encode() + b"\n"
        try:
            if self._stopping:
                raise queue.Full
            self._queue.put_nowait(line)
        except queue.Full:
            self._lost += 1
            if self._lost == 1:
                why = "it is closed" if self._stopping else f"{self._place} takes no more"
                log.warning("%s: %s, entries are being lost", self._what, why)

    def flush(self, seconds: float) -> bool:
        """Waits until all is sent, an attempt begun from now on has failed, or the time is over.

        Returns:
            Whether all is sent.
        """
        with self._changed:
            attempts, self._flush_requested = self._attempts, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle() or self._last_failed > attempts, timeout=seconds)
            return self._idle()

    def close(self, seconds: float) -> int:
        """Sends entries until the time is over or an attempt fails. Returns the number left in the folder."""
        end = time.monotonic() + seconds
        if not self._stopping:
            try:
                self._queue.put(None, timeout=seconds)
            except queue.Full:
                log.warning("%s: %s hangs, what was not written is lost", self._what, self._place)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            lost, self._lost = self._lost + len(self._unwritten), 0
        if self._refused:
            log.warning("%s: %d entries were refused", self._what, self._refused)
        if lost:
            log.warning("%s: %d entries are lost", self._what, lost)
        return self._spool.left()

    def _idle(self) -> bool:
        return self._queue.unfinished_tasks == 0 and self._all_sent()

    def _all_sent(self) -> bool:
        return not self._unwritten and self._spool.empty()

    def _keep_writing(self) -> None:
        ended = False
        while not ended:
            taken = list(self._taken())
            ended = taken[-1] is None
            failed = self._to_disk([line for line in taken if line is not None])
            if ended:
                self._spool.seal()
            with self._changed:
                self._unwritten.extend(failed)
                self._written = ended
                for _ in taken:
                    self._queue.task_done()
                self._changed.notify_all()

    def _taken(self) -> Iterator[bytes | None]:
        """Yields the lines to write, at least one; None is the last."""
        line = self._queue.get()
        yield line
        while line is not None and not self._queue.empty():
            line = self._queue.get_nowait()
            yield line

    def _to_disk(self, lines: list[bytes]) -> list[bytes]:
        """Writes the lines. Returns those that could not be written."""
        if not lines:
            return []
        try:
            self._spool.append(lines)
            return []
        except OSError as error:
            if not self._disk_failed:
                self._disk_failed = True
                log.warning("%s: cannot be kept in %s (%s), only in memory", self._what, self._place, error)
            self._lost += max(0, len(self._unwritten) + len(lines) - (self._unwritten.maxlen or 0))
            return lines

    def _keep_sending(self) -> None:
        wait = 1.0
        while True:
            last = self._stopping
            with self._changed:
                self._attempts += 1
            try:
                entries, offset = self._next()
                if entries:
                    self._hand_over(entries)
            except Exception as error:  # Whatever the error, training continues and the entries stay.
                self._failed(error)
                if last:
                    return
                self._rest(wait)
                wait = min(2 * wait, self._max_backoff)
                continue
            if not entries:
                with self._changed:
                    self._changed.wait_for(lambda: self._written or not self._all_sent())
                    if self._written and self._all_sent():
                        return
                continue
            self._ack(entries, offset)
            wait = 1.0
            if len(entries) < self._batch_size:
                self._rest(self._linger)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._flush_requested or self._stopping, timeout=seconds)
            self._flush_requested = False

    def _next(self) -> tuple[list[Entry], int | None]:
        """Returns the next entries and their end on disk; None if they are in memory only."""
        with self._changed:
            if self._unwritten:
                return [json.loads(line) for line in list(self._unwritten)[: self._batch_size]], None
            found = self._spool.next(self._batch_size)
            self._changed.notify_all()  # a file that was sent is removed only now
            return found

    def _hand_over(self, entries: list[Entry]) -> None:
        try:
            self._send(entries)
        except Refused as error:
            if len(entries) > 1:  # one by one, so that the good ones are sent
                for entry in entries:
                    self._hand_over([entry])
                return
            place = self._spool.refuse(entries[0], REFUSED)
            self._refused += 1
            if self._refused == 1:
                log.warning("%s: some are refused (%s), kept in %s", self._what, error, place)

    def _ack(self, entries: list[Entry], offset: int | None) -> None:
        with self._changed:
            if offset is not None:
                self._spool.ack(offset)
            else:
                for _ in entries:
                    self._unwritten.popleft()
            self._changed.notify_all()
        if self._away:
            self._away = False
            log.warning("%s: it is back, what was missed is being sent", self._what)

    def _failed(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            log.warning(
                "%s: it does not answer (%s). Training continues; entries are kept in %s and sent when it is back.",
                *(self._what, reason_of(error), self._place),
            )
        with self._changed:
            self._last_failed = self._attempts
            self._changed.notify_all()


def open_spool(folder: Folder) -> Spool | ObjectSpool:
    """Returns the queue of lines in a folder, on a disk or in an object store."""
    return Spool(Path(folder.path())) if folder.is_local else ObjectSpool(folder)
