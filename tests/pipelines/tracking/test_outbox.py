"""Entries that must arrive, whatever happens to the server, the disk and the process."""

import json
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patience import PATIENCE
from pipelines.files import Folder
from pipelines.tracking.metric_log import _delete_orphans
from pipelines.tracking.object_spool import ObjectSpool
from pipelines.tracking.outbox import REFUSED, Outbox, Refused
from pipelines.tracking.spool import Entry


class Server:
    """Where entries arrive; away or choosy as a test wants it."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.away = False

    def __call__(self, entries: list[Entry]) -> None:
        if self.away:
            raise ConnectionError("nobody there")
        if any(entry["n"] < 0 for entry in entries):
            raise Refused("a negative number")
        self.got += [entry["n"] for entry in entries]


def put(outbox: Outbox, *numbers: int) -> None:
    for number in numbers:
        outbox.put({"n": number})


def test_entries_arrive_in_order_and_leave_nothing_behind(tmp_path: Path) -> None:
    server = Server()
    outbox = Outbox(Folder(str(tmp_path)), server, "numbers", batch_size=7, linger=0.01)
    put(outbox, *range(100))
    assert outbox.flush(5)
    put(outbox, *range(100, 120))
    assert outbox.close(5) == 0
    assert server.got == list(range(120))
    assert list(tmp_path.iterdir()) == []


def test_an_absence_is_said_once_and_its_end_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    outbox = Outbox(Folder(str(tmp_path)), server, "numbers", linger=0.01, max_backoff=0.05)
    server.away = True
    for start in range(0, 300, 100):
        put(outbox, *range(start, start + 100))
        assert not outbox.flush(5)
    server.away = False
    assert outbox.flush(5)
    assert outbox.close(5) == 0
    assert server.got == list(range(300))
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "does not answer (nobody there)" in said[0]
    assert "is back" in said[1]


def test_an_attempt_that_began_before_does_not_decide_whether_all_is_sent(tmp_path: Path) -> None:
    sent, begun, go_on = list[Entry](), threading.Event(), threading.Event()

    def send(entries: list[Entry]) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(PATIENCE)
            raise ConnectionError("it was away when this began")
        sent.extend(entries)

    outbox = Outbox(Folder(str(tmp_path)), send, "numbers", linger=0.01)
    put(outbox, 1)
    assert begun.wait(PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        flushed = pool.submit(outbox.flush, PATIENCE)
        time.sleep(0.2)  # the flush has begun
        go_on.set()
        assert flushed.result()
    assert sent == [{"n": 1}]
    assert outbox.close(5) == 0


def test_what_is_missed_to_the_end_is_sent_at_the_next_start(tmp_path: Path) -> None:
    server = Server()
    server.away = True
    for start in (0, 10):
        outbox = Outbox(Folder(str(tmp_path)), server, "numbers")
        put(outbox, *range(start, start + 10))
        began = time.monotonic()
        assert outbox.close(10) == start + 10
        assert time.monotonic() - began < 5
    server.away = False
    outbox = Outbox(Folder(str(tmp_path)), server, "numbers")
    put(outbox, 20)
    assert outbox.close(10) == 0
    assert server.got == list(range(21))


def test_a_line_that_a_kill_cut_short_is_said_and_the_others_arrive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0-1.jsonl").write_bytes(b'{"n": 1}\nnonsense\n{"n": 2}\n{"n": ')
    server = Server()
    assert Outbox(Folder(str(tmp_path)), server, "numbers").close(5) == 0
    assert server.got == [1, 2]
    assert "damaged line" in caplog.text
    assert "cut short" in caplog.text


def test_a_refused_entry_is_set_aside_and_its_neighbours_arrive(tmp_path: Path) -> None:
    server = Server()
    outbox = Outbox(Folder(str(tmp_path)), server, "numbers")
    put(outbox, 1, -2, 3)
    assert outbox.close(5) == 0
    assert server.got == [1, 3]
    assert [json.loads(line) for line in (tmp_path / REFUSED).read_text().splitlines()] == [{"n": -2}]


def test_a_server_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    forever = threading.Event()

    def hang(_: list[Entry]) -> None:
        forever.wait()

    outbox = Outbox(Folder(str(tmp_path)), hang, "numbers")
    began = time.monotonic()
    put(outbox, *range(5000))
    assert not outbox.flush(0.2)
    assert outbox.close(0.5) == 5000
    assert time.monotonic() - began < 3
    forever.set()


def test_long_absences_fill_the_disk_and_not_the_memory(tmp_path: Path) -> None:
    server = Server()
    server.away = True
    outbox = Outbox(Folder(str(tmp_path)), server, "numbers", capacity=100, max_backoff=0.05, linger=0)
    for start in range(0, 30_000, 50):
        put(outbox, *range(start, start + 50))
        while outbox._queue.qsize():
            time.sleep(0.0005)
    server.away = False
    assert outbox.close(20) == 0
    assert server.got == list(range(30_000))


def test_what_a_full_disk_does_not_take_is_sent_from_memory(tmp_path: Path) -> None:
    script = f"""
import logging, resource
from pipelines.files import Folder
logging.basicConfig()
from pipelines.tracking.metric_log import _delete_orphans
from pipelines.tracking.object_spool import ObjectSpool
from pipelines.tracking.outbox import Outbox
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
got = []
outbox = Outbox(Folder({str(tmp_path)!r}), got.extend, "numbers")
for number in range(50):
    outbox.put({{"n": number}})
print(outbox.flush(5), outbox.close(5), {{entry["n"] for entry in got}} == set(range(50)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["True", "0", "True"]
    assert "cannot be kept" in done.stderr


def test_what_is_refused_stays_beside_what_a_kill_left_in_an_object_store(tmp_path: Path) -> None:
    files = Folder(tmp_path.as_uri())  # to pyarrow, as foreign as s3
    place = ObjectSpool(files).refuse({"from": "a/b.png"}, REFUSED)
    files.write("0123/orphan.png", b"png")
    _delete_orphans(files)
    assert files.names() == [Path(place).name]
