"""Folders and the names inside them."""

import pickle
from pathlib import Path

import pytest

from pipelines.files import Folder, safe_name


@pytest.mark.parametrize("name", ["a", "-a", "_b/00000.jpg", "a b", "é", "..a", "a..b"])
def test_names_that_stay_inside_are_kept(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/etc/passwd", "C:\\a", "C:a", "a\\b", "a\nb", "a\0"])
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="would leave its folder"):
        safe_name(name)


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
