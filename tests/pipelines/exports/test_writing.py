import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import PATIENCE
from pipelines.exports.writing import folder_output, in_order, json_output, read_lines, single, write_list, zip_output
from pipelines.files import UNFINISHED, Folder


def test_a_zip_has_the_same_bytes_at_any_time_and_is_read_by_others(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    for name in ("a.zip", "b.zip"):
        with zip_output(out, name) as add:
            add("v/0/00000.png", b"one")
            add("v/0/00005.png", b"two")
        time.sleep(0.01)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {
            "v/0/00000.png": b"one",
            "v/0/00005.png": b"two",
        }
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_zip_appears_when_it_is_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"the one before")

    def write(error: Exception | None = None) -> None:
        with zip_output(Folder(str(tmp_path)), "a.zip") as add:
            add("a", b"x" * 100_000)
            assert (tmp_path / "a.zip").read_bytes() == b"the one before"
            if error:
                raise error

    with pytest.raises(KeyError, match="on purpose"):
        write(KeyError("on purpose"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.zip": b"the one before"}
    write()
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["a"]


def test_entries_that_would_leave_the_archive_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="would leave"), zip_output(Folder(str(tmp_path)), "a.zip") as add:
        add("../a", b"")
    assert not list(tmp_path.iterdir())


def test_a_writer_killed_in_the_middle_leaves_no_zip_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pipelines.exports.writing import zip_output\n"
        "from pipelines.files import Folder\n"
        "with zip_output(Folder(sys.argv[1]), 'a.zip') as add:\n"
        "    for number in range(200):\n"
        "        add(f'{number}.png', os.urandom(1000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    other = tmp_path / f"{UNFINISHED}0-b.zip"
    other.write_bytes(b"somebody else is writing this")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=PATIENCE)
    assert done.returncode < 0
    left = {path.name for path in tmp_path.iterdir()}
    assert "a.zip" not in left
    assert len(left) == 2  # the half of it, under a name that readers look past
    with zip_output(Folder(str(tmp_path)), "a.zip") as add:
        add("a", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", other.name}


def test_a_folder_appears_when_it_is_whole_and_replaces_only_its_own_kind(tmp_path: Path) -> None:
    out = Folder(str(tmp_path / "runs"))

    def write(data: bytes, fail: bool = False) -> None:
        with folder_output(out, "maps", lambda name: name.startswith("anno_")) as add:
            add(f"anno_{data.decode()}/v/00000.png", data)
            if fail:
                raise KeyError("on purpose")

    def there() -> dict[str, bytes]:
        files = (path for path in (tmp_path / "runs").rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / "runs")): path.read_bytes() for path in files}

    write(b"0")
    with pytest.raises(KeyError):
        write(b"1", fail=True)
    assert there() == {"maps/anno_0/v/00000.png": b"0"}
    write(b"1")
    assert there() == {"maps/anno_1/v/00000.png": b"1"}
    (tmp_path / "runs/maps/thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which would be lost"):
        write(b"2")
    assert "maps/thesis.tex" in there()


def test_a_folder_on_an_object_store_is_refused_with_what_to_ask_instead() -> None:
    with (
        pytest.raises(ValueError, match=r"Choose maps\.zip instead"),
        folder_output(Folder("s3://bucket"), "maps", lambda _: True),
    ):
        pass


def test_lists_are_json_and_are_read_back_line_by_line(tmp_path: Path) -> None:
    out, items = Folder(str(tmp_path)), [{"text": "two\nlines, é"}, {"a": [1, {"b": None}]}]
    with json_output(out, "a.json") as write:
        write('{\n"info":{},\n"empty":')
        assert write_list(write, []) == 0
        write(',\n"items":')
        assert write_list(write, items) == 2
        write("}\n")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"info": {}, "empty": [], "items": items}
    assert list(read_lines(out, "a.json")) == items
    (tmp_path / "a.json").write_bytes((tmp_path / "a.json").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"a\.json is cut short"):
        list(read_lines(out, "a.json"))


def test_results_come_in_order_and_never_many_are_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(500):
            taken += 1
            yield number

    most = 0
    for place, result in enumerate(in_order(lambda number: number * 2, items())):
        assert result == 2 * place
        most = max(most, taken - place)
    assert taken == 500
    assert most < 300


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [1, 0, 1]))


def test_a_float_of_32_bits_is_written_with_its_own_digits() -> None:
    assert json.dumps(single(0.10000000149011612)) == "0.1"
    assert io.StringIO(json.dumps(single(123.5))).read() == "123.5"
