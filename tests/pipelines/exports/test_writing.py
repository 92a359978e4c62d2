import io
import json
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patience import PATIENCE
from pipelines.exports.writing import (
    checked_output,
    folder_output,
    in_order,
    json_output,
    read_lines,
    single,
    write_list,
    zip_output,
)
from pipelines.files import UNFINISHED, Folder
from s3_server import S3Server


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


def test_a_file_has_the_name_of_a_folder_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("a thesis")
    with (
        pytest.raises(ValueError, match="maps is a file, which would be lost"),
        folder_output(Folder(str(tmp_path)), "maps", lambda _: True),
    ):
        pass
    assert (tmp_path / "maps").read_text() == "a thesis"


def write_zip(out: Folder, name: str, data: bytes) -> None:
    with zip_output(out, name) as add:
        add("anno_0", data)


def write_folder(out: Folder, name: str, data: bytes) -> None:
    with folder_output(out, name, lambda name: name.startswith("anno_")) as add:
        add("anno_0", data)


def shown(place: Path) -> bytes:
    return (place / "anno_0").read_bytes() if place.is_dir() else zipfile.ZipFile(place).read("anno_0")


@pytest.mark.parametrize(
    ("name", "write"), [("a[1].zip", write_zip), ("maps", write_folder), ("maps.json", write_folder)]
)
def test_what_is_checked_first_replaces_an_older_one_if_it_is_right(
    tmp_path: Path, name: str, write: Callable[[Folder, str, bytes], None]
) -> None:
    out, place = Folder(str(tmp_path)), tmp_path / name
    write(out, name, b"older")
    (tmp_path / f"{UNFINISHED}0-other.zip").write_text("somebody else is writing this")
    with pytest.raises(KeyError, match="it is wrong"), checked_output(out, name) as (folder, draft):  # noqa: PT012
        write(folder, draft, b"wrong")
        assert shown(Path(folder.path(draft))) == b"wrong"
        raise KeyError("it is wrong")
    assert shown(place) == b"older"
    with checked_output(out, name) as (folder, draft):
        write(folder, draft, b"newer")
        assert shown(place) == b"older"
    assert shown(place) == b"newer"
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{UNFINISHED}0-other.zip"}


@pytest.mark.parametrize(("name", "write"), [("a.zip", write_zip), ("maps", write_folder)])
def test_a_draft_of_a_killed_writer_is_removed_by_the_next_one(
    tmp_path: Path, name: str, write: Callable[[Folder, str, bytes], None]
) -> None:
    out = Folder(str(tmp_path))
    write(out, name, b"older")
    write(out, f"{UNFINISHED}{uuid.uuid4().hex}-{name}", b"half checked")
    assert out.names() == [name], "readers ignore it"
    with checked_output(out, name) as (folder, draft):
        write(folder, draft, b"newer")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_draft_does_not_replace_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/thesis.tex").write_text("years of work")
    out = Folder(str(tmp_path))
    with (
        pytest.raises(ValueError, match=rf"{tmp_path}/maps holds thesis\.tex, which would be lost"),
        checked_output(out, "maps") as (folder, draft),
    ):
        write_folder(folder, draft, b"newer")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["maps", "maps/thesis.tex"]


def test_an_object_store_gets_what_was_checked_in_one_request(s3_server: S3Server) -> None:
    out = Folder(s3_server.uri(f"submissions/{uuid.uuid4().hex}"))
    out.write("a.zip", b"older")
    s3_server.requests()
    with pytest.raises(KeyError, match="it is wrong"), checked_output(out, "a.zip") as (folder, draft):  # noqa: PT012
        write_zip(folder, draft, b"wrong")
        raise KeyError("it is wrong")
    assert s3_server.requests() == []
    with checked_output(out, "a.zip") as (folder, draft):
        write_zip(folder, draft, b"newer")
    assert [one.split("?")[0] for one in s3_server.requests()] == [f"PUT /{out.path('a.zip')}"]
    assert zipfile.ZipFile(io.BytesIO(out.read("a.zip"))).read("anno_0") == b"newer"
    assert out.names(hidden=True) == ["a.zip"]


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
