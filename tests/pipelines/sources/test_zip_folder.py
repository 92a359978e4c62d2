import pickle
import zipfile
from pathlib import Path

import pytest

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
