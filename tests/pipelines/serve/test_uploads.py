import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.serve.refusal import Refusal
from pipelines.serve.uploads import Workplace, save_upload

PNG = b"\x89PNG and so on"


def test_files_get_names_of_our_own(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "b.exe\0", "c.jpg"]
    files = [(name, io.BytesIO(data)) for name, data in zip(names, (PNG, b"\xff\xd8\xff", b"RIFF"), strict=True)]
    upload = save_upload(files, True, tmp_path)
    assert upload.video.images
    assert upload.name == "passwd"
    found = sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file())
    assert found == ["images/00000.png", "images/00001.jpg", "images/00002.webp"]


def test_a_video_is_one_file_and_its_digest_is_of_its_bytes(tmp_path: Path) -> None:
    digests = []
    for number, data in enumerate((b"one", b"one", b"two")):
        folder = tmp_path / str(number)
        folder.mkdir()
        upload = save_upload([("C:\\films\\cat\n.mp4", io.BytesIO(data))], False, folder)
        assert upload.name == "cat.mp4"
        assert (folder / "upload").read_bytes() == data
        digests.append(upload.digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"text"])
def test_what_is_no_image_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is no image"):
        save_upload([("a.png", io.BytesIO(data))], True, tmp_path)


def test_an_empty_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="The file 'video' is empty"):
        save_upload([("", io.BytesIO(b""))], False, tmp_path)


def test_folders_are_gone_with_their_block_and_those_of_dead_processes_with_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, namesake, other = (tmp_path / f"sgmg-serve-{pid}-x" for pid in (dead.pid, os.getpid(), os.getppid()))
    for folder in (left, namesake, other):
        folder.mkdir()
    workplace, second = Workplace(), Workplace()
    assert [one.exists() for one in (left, namesake, other, workplace.path)] == [False, False, True, True]
    second.close()
    with suppress(RuntimeError), workplace.folder() as folder:
        (folder / "file").write_bytes(b"x")
        raise RuntimeError
    assert list(workplace.path.iterdir()) == []
    workplace.close()
    assert not workplace.path.exists()
