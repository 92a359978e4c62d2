import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import BadItem, DamagedFile, LayoutError
from pipelines.sources import zip_folder
from pipelines.sources.reading import annotation_text, item_bytes
from pipelines.sources.zip_folder import ZipFolder


@pytest.fixture
def packed(tmp_path: Path) -> ZipFolder:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/10.png", "a/9.png", "a/b/x.txt", "a/._9.png", "table.csv"):
            archive.writestr(name, name)
    return ZipFolder(str(tmp_path / "a.zip"))


def test_a_zip_is_read_like_a_folder(packed: ZipFolder) -> None:
    assert packed.names() == ["a", "table.csv"]
    assert packed.names("a") == ["9.png", "10.png", "b"]
    assert packed.names("a", ".png", hidden=True) == ["9.png", "10.png", "._9.png"]
    assert packed.names("missing") == []
    assert packed.read("a/b/x.txt") == b"a/b/x.txt"
    assert [packed.has(name) for name in ("a", "a/b", "table.csv", "b")] == [True, True, True, False]
    inner = packed.folder("a").folder("b")
    assert inner.names() == ["x.txt"]
    assert inner.read("x.txt") == b"a/b/x.txt"
    assert inner.path("x.txt") == f"{packed.uri}/a/b/x.txt"


def test_it_can_be_sent_to_a_worker(packed: ZipFolder) -> None:
    assert pickle.loads(pickle.dumps(packed.folder("a"))).names() == ["9.png", "10.png", "b"]


def test_what_is_not_there_or_leaves_the_folder_is_named(packed: ZipFolder) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.zip/a/8\.png does not exist"):
        packed.folder("a").read("8.png")
    with pytest.raises(ValueError, match="would leave its folder"):
        packed.read("../a")


def test_a_zip_made_on_windows_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", "ab")
    data = (tmp_path / "a.zip").read_bytes().replace(b"b.png", b"a\\b.p")
    (tmp_path / "a.zip").write_bytes(data)
    packed = ZipFolder(str(tmp_path / "a.zip"))
    assert (packed.names(), packed.names("a"), packed.read("a/b.p"), packed.size("a/b.p")) == (["a"], ["b.p"], b"ab", 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"payload")] ^= 1
    path.write_bytes(data)


def encrypted(path: Path) -> None:
    data = path.read_bytes()
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(mark) + flags
        data = data[:place] + b"\x01" + data[place + 1 :]
    path.write_bytes(data)


def otherwise_packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", "payload")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flipped, r"it is damaged \(Bad CRC-32"),
        (encrypted, r"it is damaged \(.*is encrypted"),
        (otherwise_packed, "it is packed by method 12 of zip, but only deflate is read"),
    ],
)
def test_a_damaged_file_costs_its_video_alone(spoil: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", "payload")
    spoil(path)
    packed = ZipFolder(str(path))
    with pytest.raises(BadItem, match=rf"a\.zip/a\.png: {reason}.*Make the zip again"):
        item_bytes(packed, "a.png", "v")
    with pytest.raises(LayoutError, match=rf"a\.zip/a\.png: {reason}"):
        annotation_text(packed, "a.png")


def test_no_more_is_unpacked_than_a_file_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_folder, "MAX_ENTRY_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fits", bytes(1000))
        archive.writestr("does not", bytes(1001))
    packed = ZipFolder(str(tmp_path / "a.zip"))
    assert len(packed.read("fits")) == 1000
    with pytest.raises(DamagedFile, match="does not: it has more than 1000 bytes"):
        packed.read("does not")
