"""Uploads: files that a client sends, in a folder of their own that is gone when the request ends."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from pipelines.serve.refusal import Refusal
from pipelines.video.listing import Video

_ROOT = "sgmg-serve-"
_BEGINNINGS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
"""First bytes of images, and the suffix of each kind."""
_LETTERS = 200
_of_this_process: set[Path] = set()
"""Folders of this process: another one, in another container, may have had its number."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded video.

    Attributes:
        video: the file, or the folder of the images.
        name: that the client gave it, for display.
        digest: of all its bytes.
    """

    video: Video
    name: str
    digest: str


class Workplace:
    """The folder of this process for uploads, answers and kept videos; deleted with the process.

    What processes left that were killed is deleted when the next one starts.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_ROOT}{os.getpid()}-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        _of_this_process.add(self.path)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Makes a folder, and deletes it with all that is in it when the block ends."""
        path = Path(tempfile.mkdtemp(dir=self.path))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Deletes everything."""
        self._folder.cleanup()


def save_upload(files: Sequence[tuple[str, BinaryIO]], images: bool, folder: Path) -> Upload:
    """Writes the files of a request into a folder, under names of our own.

    Args:
        files: name that the client gave, and content, in the order of the request.
        images: whether they are the frames of a video; else it is one file.
        folder: an empty one.

    Raises:
        Refusal: a file is empty, or one of the images is none.
        OSError: the disk is full.
    """
    digest = hashlib.sha256(b"images" if images else b"video")
    if images:
        (folder / "images").mkdir()
    name = _shown(files[0][0])
    for place, (given, content) in enumerate(files):
        path = folder / "images" / f"{place:05d}{_suffix(given, content)}" if images else folder / "upload"
        if not _copy(content, path, digest):
            raise Refusal(422, f"The file {_shown(given)!r} is empty. Send a video, or images.")
    video = Video(str(folder / "images"), images=True) if images else Video(str(folder / "upload"))
    return Upload(video, name, digest.hexdigest())


def _suffix(name: str, content: BinaryIO) -> str:
    """Returns the suffix that the first bytes of an image tell."""
    content.seek(0)
    beginning = content.read(8)
    suffix = next((suffix for bytes_, suffix in _BEGINNINGS if beginning.startswith(bytes_)), None)
    if suffix is None:
        raise Refusal(422, f"{_shown(name)!r} is no image (JPEG, PNG, WebP, BMP or TIFF). Send a video as `video`.")
    return suffix


def _copy(content: BinaryIO, path: Path, digest: "hashlib._Hash") -> int:
    content.seek(0)
    count = 0
    with path.open("wb") as stream:
        while piece := content.read(2**20):
            digest.update(piece)
            count += stream.write(piece)
    digest.update(count.to_bytes(8, "little"))
    return count


def _shown(name: str) -> str:
    """Returns what a client called its file, without folders and without what cannot be printed."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_LETTERS] or "video"


def _sweep(folder: Path) -> None:
    """Deletes the folders of processes that do not run any more."""
    for left in folder.glob(f"{_ROOT}*"):
        number = left.name.removeprefix(_ROOT).partition("-")[0]
        if number == str(os.getpid()):
            runs = left in _of_this_process
        else:
            runs = not number.isdecimal() or psutil.pid_exists(int(number))
        if not runs:
            shutil.rmtree(left, ignore_errors=True)
