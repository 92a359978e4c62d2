"""Folders and the names inside them."""

import pickle
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DamagedFile
from pipelines.files import Folder, number_order, read_bytes, safe_name, storage_retries
from s3_server import S3Server


@pytest.mark.parametrize("name", ["a", "-a", "_b/00000.jpg", "a b", "é", "..a", "a..b"])
def test_names_that_stay_inside_are_kept(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/etc/passwd", "C:\\a", "C:a", "a\\b", "a\nb", "a\0"])
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="would leave its folder"):
        safe_name(name)


def test_numbers_in_names_count_by_value_however_long_they_are() -> None:
    names = ["f2_10", "f2_9", "f10_1", "9" * 5000, "b", "7", "07", *map(str, range(11, -1, -1)), ""]
    assert sorted(names, key=number_order) == [
        "", "0", "1", "2", "3", "4", "5", "6", "07", "7", "7", "8", "9", "10", "11", "9" * 5000, "b", "f2_9", "f2_10",
        "f10_1",
    ]  # fmt: skip


def test_hidden_names_are_listed_on_demand_only(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for name in ("10.png", "9.png", "._9.png", "..odd.png", ".DS_Store"):
        folder.write(name, b"x")
    assert folder.names(suffix=".png") == ["9.png", "10.png", "..odd.png"]
    assert list(folder.files()) == ["9.png", "10.png", "..odd.png"]
    assert set(folder.names(hidden=True)) == {"..odd.png", "9.png", "10.png", "._9.png", ".DS_Store"}


def test_a_folder_lists_reads_and_travels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.txt").write_bytes(b"two")
    (tmp_path / "in/a.txt").write_bytes(b"one")
    (tmp_path / "in/c.png").write_bytes(b"")
    for folder in (Folder(str(tmp_path)), Folder(tmp_path.as_uri())):
        assert folder.names("in", ".txt") == ["a.txt", "b.txt"]
        assert folder.names("nowhere") == []
        assert folder.folder("in").read("b.txt") == b"two"
        assert folder.has("in/c.png")
        assert not folder.has("c.png")
        assert pickle.loads(pickle.dumps(folder)) == folder
        with pytest.raises(FileNotFoundError, match=str(tmp_path / "in/z.txt")):
            folder.read("in/z.txt")
        with pytest.raises(ValueError, match="would leave"):
            folder.read("../secret")


@pytest.fixture
def in_bucket(s3_server: S3Server) -> Folder:
    return Folder(s3_server.uri(f"runs/{uuid.uuid4().hex}"))


def test_a_file_in_a_bucket_takes_one_request_and_no_folder_is_made(s3_server: S3Server, in_bucket: Folder) -> None:
    s3_server.requests()
    in_bucket.make()
    in_bucket.write("a/b.json", b"1")
    assert [one.split("?")[0] for one in s3_server.requests()] == [f"PUT /{in_bucket.path('a/b.json')}"]
    assert in_bucket.read("a/b.json") == b"1"
    assert in_bucket.names("a") == ["b.json"]
    with in_bucket.output("large.bin") as stream:
        for _ in range(24):
            stream.write(b"x" * 2**20)
    methods = [one.split(" ")[0] for one in s3_server.requests()]
    assert methods.count("POST") == 2  # begins and ends an upload in parts
    assert in_bucket.size("large.bin") == 24 * 2**20


def test_what_fails_halfway_leaves_nothing_in_a_bucket(s3_server: S3Server, in_bucket: Folder) -> None:
    s3_server.requests()

    def fail(stream: pa.NativeFile) -> None:
        stream.write(b"x")
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"), in_bucket.output("a.bin") as stream:
        fail(stream)
    assert s3_server.requests() == []
    with pytest.raises(FileNotFoundError, match=r"a\.bin does not exist"):
        in_bucket.read("a.bin")


def test_folders_of_a_bucket_keep_its_options(in_bucket: Folder) -> None:
    inner = in_bucket.folder("a").folder("b")
    inner.write("c.json", b"2")
    assert in_bucket.read("a/b/c.json") == pickle.loads(pickle.dumps(inner)).read("c.json") == b"2"
    assert (inner.name, inner.is_object_store, inner.is_local) == ("b", True, False)
    assert read_bytes(inner.uri_of("c.json")) == b"2"
    in_bucket.remove_folder("a")
    in_bucket.remove_folder("nowhere")
    assert in_bucket.names() == []


def test_a_busy_store_is_asked_again(s3_server: S3Server, in_bucket: Folder) -> None:
    in_bucket.write("a.json", b"1")
    storage_retries()
    s3_server.busy(2)
    assert in_bucket.read("a.json") == b"1"
    assert storage_retries() == 2
    s3_server.busy(1)
    in_bucket.write("a.json", b"2")
    assert in_bucket.read("a.json") == b"2"
    assert (storage_retries(), storage_retries()) == (1, 0)


def test_a_store_that_stays_busy_is_an_error_that_says_so(
    s3_server: S3Server, in_bucket: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.files._WAITS", (0.0, 0.0))
    s3_server.busy(3)
    with pytest.raises(OSError, match=r"too busy 3 times in a row: .*Start the same command again"):
        in_bucket.read("a.json")


@pytest.mark.parametrize(("size", "kind"), [(10**12, DamagedFile), (10**6, MemoryError)])
def test_a_machine_without_memory_is_not_taken_for_damage(tmp_path: Path, size: int, kind: type[Exception]) -> None:
    """People would delete good shards."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(kind), Folder(str(tmp_path)).parquet("a.parquet"):
        raise pa.ArrowMemoryError(f"malloc of size {size} failed")


def test_files_are_listed_in_folders_that_are_links_but_not_for_ever(tmp_path: Path) -> None:
    for name in ("a/10.json", "a/9.JSON", "a/b/c.json", "a/._x.json", "elsewhere/d.json", "a/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a/b/back").symlink_to(tmp_path / "a")
    assert Folder(str(tmp_path / "a")).files_within(".json") == ["9.JSON", "10.json", "b/c.json", "link/d.json"]
