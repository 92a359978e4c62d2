"""Entries on their way to a server that may be away: on disk first, then sent in order until they have arrived."""

import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.tracking.spool import Entry, Spool

REFUSED = "refused.txt"

log = logging.getLogger(__name__)


class Refused(Exception):
    """The server is there and will never take these entries."""


class Outbox:
    """Takes entries without waiting; one thread writes them to disk, another sends them, in order.

    What a killed process left in the folder is sent first, its last file from the start: `send` must bear an entry
    that it was given before. A folder has one outbox at a time.

    Args:
        folder: on this machine or a shared disk; made where missing.
        send: hands entries over, or raises; `Refused` sets them aside, anything else means: try again.
        what: the entries and where they go, for messages.
        at_once: entries given to `send` together, at most.
        room: entries held in memory while the disk is slow, at most.
        pause: seconds between two sends, in which entries gather.
        longest_wait: seconds between two attempts, at most, while the server is away.
    """

    def __init__(
        self,
        folder: Path,
        send: Callable[[list[Entry]], None],
        what: str,
        *,
        at_once: int = 100,
        room: int = 10_000,
        pause: float = 1.0,
        longest_wait: float = 30.0,
    ) -> None:
        self._spool, self._send, self._what = Spool(folder), send, what
        self._at_once, self._pause, self._longest_wait = at_once, pause, longest_wait
        self._queue: queue.Queue[bytes | None] = queue.Queue(room)  # lines; None ends it
        self._changed = threading.Condition()  # guards all below
        self._unwritten: deque[bytes] = deque(maxlen=room)  # what the disk would not take
        self._lost = self._failures = self._refused = 0
        self._hurry = self._stopping = self._written = self._away = self._disk_failed = False
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._keep_writing, self._keep_sending)]
        for thread in self._threads:
            thread.start()

    def put(self, entry: Entry) -> None:
        """Takes an entry of plain values; never waits. Where the disk hangs for long, entries are lost and counted."""
        line = json.dumps(entry).encode() + b"\n"
        try:
            if self._stopping:
                raise queue.Full
            self._queue.put_nowait(line)
        except queue.Full:
            self._lost += 1
            if self._lost == 1:
                why = "it is closed" if self._stopping else f"{self._spool.folder} takes no more"
                log.warning("%s: %s, entries are being lost", self._what, why)

    def flush(self, seconds: float) -> bool:
        """Waits until all has arrived, an attempt has failed, or the time is over; whether all has arrived."""
        with self._changed:
            failures, self._hurry = self._failures, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle() or self._failures > failures, timeout=seconds)
            return self._idle()

    def close(self, seconds: float) -> int:
        """Sends what it can in this time, gives up at a failure; how many entries stay in the folder for the next."""
        end = time.monotonic() + seconds
        if not self._stopping:
            try:
                self._queue.put(None, timeout=seconds)
            except queue.Full:
                log.warning("%s: %s hangs, what was not written is lost", self._what, self._spool.folder)
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
        """The lines to write, at least one; None is the last."""
        line = self._queue.get()
        yield line
        while line is not None and not self._queue.empty():
            line = self._queue.get_nowait()
            yield line

    def _to_disk(self, lines: list[bytes]) -> list[bytes]:
        """The lines that the disk did not take."""
        if not lines:
            return []
        try:
            self._spool.append(lines)
            return []
        except OSError as error:
            if not self._disk_failed:
                self._disk_failed = True
                log.warning("%s: cannot be kept in %s (%s), only in memory", self._what, self._spool.folder, error)
            self._lost += max(0, len(self._unwritten) + len(lines) - (self._unwritten.maxlen or 0))
            return lines

    def _keep_sending(self) -> None:
        wait = 1.0
        while True:
            entries, offset = self._next()
            if not entries:
                with self._changed:
                    self._changed.wait_for(lambda: self._written or not self._all_sent())
                    if self._written and self._all_sent():
                        return
                continue
            last = self._stopping
            try:
                self._hand_over(entries)
            except Exception as error:  # Whatever it is, training goes on, the entries stay, and it is said.
                self._failed(error)
                if last:
                    return
                self._rest(wait)
                wait = min(2 * wait, self._longest_wait)
                continue
            self._arrived(entries, offset)
            wait = 1.0
            if len(entries) < self._at_once:
                self._rest(self._pause)

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurry or self._stopping, timeout=seconds)
            self._hurry = False

    def _next(self) -> tuple[list[Entry], int | None]:
        """The next entries, and where they end on disk; None for those that are in memory only."""
        with self._changed:
            if self._unwritten:
                return [json.loads(line) for line in list(self._unwritten)[: self._at_once]], None
            found = self._spool.next(self._at_once)
            self._changed.notify_all()  # a file that has arrived is gone only now
            return found

    def _hand_over(self, entries: list[Entry]) -> None:
        try:
            self._send(entries)
        except Refused as error:
            if len(entries) > 1:  # one by one, so that the good ones arrive
                for entry in entries:
                    self._hand_over([entry])
                return
            aside = self._spool.folder / REFUSED
            self._refused += 1
            if self._refused == 1:
                log.warning("%s: some are refused (%s), kept in %s", self._what, error, aside)
            with aside.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entries[0]) + "\n")

    def _arrived(self, entries: list[Entry], offset: int | None) -> None:
        with self._changed:
            if offset is not None:
                self._spool.arrived(offset)
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
                "%s: it does not answer (%s). Training goes on; what is logged is kept in %s and sent when it is back.",
                *(self._what, str(error).strip() or type(error).__name__, self._spool.folder),
            )
        with self._changed:
            self._failures += 1
            self._changed.notify_all()
