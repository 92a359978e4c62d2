"""The ledger: what is answered is known from one file, and from the results themselves where that does not know."""

import gzip
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import Failure, JobError
from pipelines.files import UNFINISHED, Folder
from pipelines.ledger import LEDGER, Entry, Ledger, Rows, add_footer, read_ledger

DOG, CAT = ("d", "the dog"), ("c", "the cat")
SLOW = Failure("/a.mp4", "decode", "it took too long")


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def an_entry(video: str, *sentences: tuple[str, str], **values: object) -> Entry:
    given = {"stamp": "1", "fingerprint": "f", "groups": 1, **values}
    return Entry(video, f"/{video}.mp4", sentences=sentences, **given)  # pyright: ignore[reportArgumentType]


def write_result(out: Folder, name: str, *entries: Entry) -> int:
    with out.output(f"predictions/{name}") as stream, pq.ParquetWriter(stream, pa.schema([("x", pa.int8())])) as writer:
        add_footer(writer, entries)
    return out.size(f"predictions/{name}")


def ledger_of(out: Folder, **files: list[Entry]) -> Ledger:
    ledger = Ledger("settings")
    for name, entries in files.items():
        ledger.add(f"{name}.parquet", write_result(out, f"{name}.parquet", *entries), entries)
    return ledger


def test_a_ledger_is_read_as_it_was_written(out: Folder) -> None:
    ledger = ledger_of(out, x=[an_entry("a", DOG), an_entry("b", DOG, CAT, first_group=1)], y=[an_entry("a", CAT)])
    ledger.add("", 0, [an_entry("poem", groups=0, fingerprint="", failures=(SLOW,))])
    ledger.write(out)
    found = read_ledger(out, "settings")
    assert (found.files, found.by_video) == (ledger.files, ledger.by_video)
    assert found.rows == {"a": (Rows("x.parquet", 0, 1), Rows("y.parquet", 0, 1)), "b": (Rows("x.parquet", 1, 1),)}
    assert found.answered("a") == dict([DOG, CAT])
    assert found.answered("a", stamp="1") == dict([DOG, CAT])
    assert found.answered("a", stamp="2") == found.answered("a", fingerprint="g") == found.answered("poem") == {}


def test_results_that_it_does_not_name_tell_themselves(out: Folder) -> None:
    ledger_of(out, x=[an_entry("a", DOG)]).write(out)
    write_result(out, "y.parquet", an_entry("b", DOG))
    write_result(out, f"{UNFINISHED}z.parquet", an_entry("c", DOG))
    found = read_ledger(out, "settings")
    assert sorted(found.by_video) == ["a", "b"]
    assert [one.file for one in found.entries] == ["x.parquet", "y.parquet"]


def test_a_result_that_was_written_again_or_is_gone_counts_as_it_is_now(out: Folder) -> None:
    ledger_of(out, x=[an_entry("a", DOG)], y=[an_entry("b", DOG)]).write(out)
    write_result(out, "x.parquet", an_entry("a", DOG, CAT))
    out.remove("predictions/y.parquet")
    found = read_ledger(out, "settings")
    assert found.answered("a") == dict([DOG, CAT])
    assert sorted(found.by_video) == ["a"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"version": 1, "settings": "settings", "fil', "is damaged"),
        (b'{"version": 1, "settings": "settings", "files": 3, "entries": []}', "is damaged"),
        (b'{"version": 0, "settings": "settings", "files": {}, "entries": []}', "other settings or code"),
        (b'{"version": 1, "settings": "others", "files": {}, "entries": []}', "other settings or code"),
    ],
)
def test_a_ledger_that_cannot_be_used_is_made_again(
    out: Folder, caplog: pytest.LogCaptureFixture, data: bytes, said: str
) -> None:
    write_result(out, "x.parquet", an_entry("a", DOG))
    out.write(LEDGER, gzip.compress(data))
    with caplog.at_level(logging.WARNING):
        assert read_ledger(out, "settings").answered("a") == dict([DOG])
    assert said in caplog.text
    assert "made again from the results" in caplog.text


@pytest.mark.parametrize("whole", [b"", b"{}", b'{"version": 1, "settings": "settings", "files": {}, "entries": []}'])
def test_half_a_ledger_is_made_again(out: Folder, caplog: pytest.LogCaptureFixture, whole: bytes) -> None:
    write_result(out, "x.parquet", an_entry("a", DOG))
    out.write(LEDGER, gzip.compress(whole)[:-9])
    with caplog.at_level(logging.WARNING):
        assert read_ledger(out, "settings").answered("a") == dict([DOG])
    assert "is damaged" in caplog.text


def test_a_ledger_that_is_not_compressed_is_made_again(out: Folder, caplog: pytest.LogCaptureFixture) -> None:
    write_result(out, "x.parquet", an_entry("a", DOG))
    out.write(LEDGER, b"{}")
    with caplog.at_level(logging.WARNING):
        assert read_ledger(out, "settings").answered("a") == dict([DOG])
    assert "is damaged" in caplog.text


def test_a_ledger_of_newer_code_is_refused(out: Folder) -> None:
    out.write(LEDGER, gzip.compress(b'{"version": 2, "more": true}'))
    with pytest.raises(JobError, match=r"ledger\.json\.gz has version 2, this code reads 1"):
        read_ledger(out, "settings")


@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", b"PAR1" + b"x" * 500 + b"PAR1"])
def test_a_damaged_result_is_done_again(out: Folder, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    write_result(out, "x.parquet", an_entry("a", DOG))
    out.write("predictions/y.parquet", data)
    with caplog.at_level(logging.WARNING):
        assert sorted(read_ledger(out, "settings").by_video) == ["a"]
    assert "y.parquet is damaged" in caplog.text
    assert "its videos are done again" in caplog.text
    assert out.names("predictions") == ["x.parquet"]


def test_of_a_video_that_was_looked_at_the_best_of_its_version_is_kept(out: Folder) -> None:
    ledger = ledger_of(
        out,
        old=[an_entry("a", DOG, fingerprint="e")],
        half=[an_entry("a", DOG, CAT, failures=(SLOW,))],
        dog=[an_entry("a", DOG), an_entry("b", DOG, fingerprint="e")],
    )
    ledger.settle("a", "f", "2")
    assert [(one.file, one.stamp) for one in ledger.by_video["a"]] == [("dog.parquet", "2"), ("half.parquet", "2")]
    assert ledger.rows["a"] == (Rows("dog.parquet", 0, 1), Rows("half.parquet", 0, 1, without=("d",)))
    ledger.add("cat.parquet", write_result(out, "cat.parquet", an_entry("a", CAT)), [an_entry("a", CAT)])
    ledger.settle("a", "f", "2")
    assert [one.file for one in ledger.by_video["a"]] == ["cat.parquet", "dog.parquet"]
    ledger.settle("b", "f", "2")
    assert "b" not in ledger.by_video
    ledger.write(out)
    assert out.names("predictions") == ["cat.parquet", "dog.parquet"]  # of the others nothing counts any more
    assert read_ledger(out, "settings").by_video == ledger.by_video


def test_entries_that_arrive_twice_count_once(out: Folder) -> None:
    ledger = ledger_of(out, x=[an_entry("a", DOG)])
    ledger.add("x.parquet", ledger.files["x.parquet"], [an_entry("a", DOG)])
    ledger.settle("a", "f", "1")
    assert len(ledger.by_video["a"]) == 1


def test_a_video_that_could_not_be_read_is_forgotten_when_it_is_looked_at_again(out: Folder) -> None:
    ledger = ledger_of(out, x=[an_entry("a", DOG)])
    gone = an_entry("a", groups=0, fingerprint="", failures=(SLOW,))
    for _ in range(2):
        ledger.forget_failures("a")
        ledger.add("", 0, [gone])
    assert ledger.by_video["a"] == [replace(an_entry("a", DOG), file="x.parquet"), gone]
    ledger.forget_failures("a")
    ledger.settle("a", "f", "1")
    assert ledger.by_video["a"] == [replace(an_entry("a", DOG), file="x.parquet")]
