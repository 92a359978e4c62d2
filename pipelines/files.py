"""Folders on any filesystem of pyarrow: names cannot leave them, and files are written whole or not at all."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

UNFINISHED = ".unfinished-"
"""Prefix of the names of files that are still being written; readers ignore them."""


def safe_name(name: str) -> str:
    """Returns a name that came out of an annotation (video, frame, file), if it stays inside its folder.

    >>> safe_name("-davisCamel")
    '-davisCamel'

    Raises:
        ValueError: the name is empty, absolute, or holds `..`, a backslash, a drive letter or a control character.
    """
    path = PurePosixPath(name)
    odd = not name or path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":"
    if odd or any(ord(letter) < 32 for letter in name):
        raise ValueError(f"The name {name!r} would leave its folder. Mend it in the annotations.")
    return name


def is_uri(path: str) -> bool:
    """Returns whether a path names its filesystem, as s3://… does; any other is a path of this machine."""
    return "://" in path


@dataclass(frozen=True)
class Folder:
    """A folder at a local path or a URI (s3://, gs://, …). Sent to workers as its URI."""

    uri: str

    @cached_property
    def _located(self) -> tuple[fs.FileSystem, str]:
        if not self.is_local:
            return fs.FileSystem.from_uri(self.uri)
        return fs.LocalFileSystem(), str(Path(self.uri).expanduser().resolve())

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # Filesystem handles are opened where they are used.

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    @property
    def is_local(self) -> bool:
        """Whether the folder is at a path of this machine, so that `pathlib` can take it."""
        return not is_uri(self.uri)

    @property
    def scheme(self) -> str:
        """Part of the URI before the colon, such as `s3`; empty for a local path."""
        return "" if self.is_local else self.uri.partition("://")[0]

    @property
    def filesystem(self) -> fs.FileSystem:
        """The filesystem that `path` is valid on."""
        return self._located[0]

    def path(self, name: str = "") -> str:
        """Returns the full path of a name in the folder, for messages and for the filesystem.

        Raises:
            ValueError: the name would leave the folder.
        """
        root = self._located[1]
        return f"{root}/{safe_name(name)}" if name else root

    def folder(self, name: str) -> "Folder":
        """Returns a folder inside this one."""
        return Folder(f"{self.uri.rstrip('/')}/{safe_name(name)}")

    def read(self, name: str) -> bytes:
        """Reads all bytes of a file.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        try:
            with self._located[0].open_input_stream(self.path(name), compression=None) as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.") from error

    def has(self, name: str) -> bool:
        """Returns whether a file or folder of that name exists."""
        return self._located[0].get_file_info(self.path(name)).type != fs.FileType.NotFound

    def names(self, name: str = "", suffix: str = "") -> list[str]:
        """Lists the sorted names directly in a folder that end with `suffix`; empty if the folder does not exist."""
        selector = fs.FileSelector(self.path(name), allow_not_found=True)
        try:
            found = self._located[0].get_file_info(selector)
        except (NotADirectoryError, pa.ArrowInvalid):
            return []
        return sorted(info.base_name for info in found if info.base_name.endswith(suffix))

    def open(self, name: str) -> pa.NativeFile:
        """Opens a file for random access, as Parquet needs it.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        try:
            return self._located[0].open_input_file(self.path(name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.") from error

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        found = self._located[0].get_file_info(self.path(name))
        if found.type != fs.FileType.File:
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.")
        return found.size

    def make(self) -> "Folder":
        """Creates the folder and its parents if they are missing. Returns the folder."""
        self._located[0].create_dir(self.path(), recursive=True)
        return self

    @contextmanager
    def output(self, name: str) -> Iterator[pa.NativeFile]:
        """Opens a stream that becomes the file when the block ends without error; until then the name does not exist.

        Replaces an existing file. Of two concurrent writers of one name the last to end wins.

        Raises:
            OSError: the disk is full, or permission is denied.
        """
        filesystem, path = self._located[0], self.path(name)
        parent, _, base = path.rpartition("/")
        unfinished = f"{parent}/{UNFINISHED}{uuid.uuid4().hex}-{base}"
        filesystem.create_dir(parent, recursive=True)
        try:
            with filesystem.open_output_stream(unfinished, compression=None) as stream:
                yield stream
            filesystem.move(unfinished, path)
        except BaseException:
            if filesystem.get_file_info(unfinished).type != fs.FileType.NotFound:
                filesystem.delete_file(unfinished)
            raise

    def write(self, name: str, data: bytes) -> None:
        """Writes a whole file at once, as `output` does.

        Raises:
            OSError: the disk is full, or permission is denied.
        """
        with self.output(name) as stream:
            stream.write(data)

    def remove_unfinished(self, name: str = "") -> None:
        """Removes the files of killed writers from a folder; no other writer may be active there."""
        for left in self.names(name):
            if left.startswith(UNFINISHED):
                self._located[0].delete_file(f"{self.path(name)}/{left}")

    def remove(self, name: str) -> None:
        """Deletes one file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        self._located[0].delete_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Deletes a folder and everything in it, if it exists; several processes may do so at once."""
        filesystem, path = self._located[0], self.path(name)
        if filesystem.get_file_info(path).type == fs.FileType.Directory:
            with suppress(FileNotFoundError):  # another process was faster
                filesystem.delete_dir(path)

    def download(self, out: Path) -> None:
        """Copies all files of the folder into a local folder, which is created if it is missing."""
        out.mkdir(parents=True, exist_ok=True)
        fs.copy_files(self.path(), str(out), source_filesystem=self.filesystem)


_OPTIONS = r"\?(?:region|scheme|endpoint_override|allow_\w+|tls_\w+|project_id|retry_limit_seconds)=[^/]*"


_REMOTE = re.compile(rf"(?P<scheme>\w[\w+.-]*)://(?P<root>[^/]*)(?P<path>/.*?)?(?P<query>{_OPTIONS})?", re.DOTALL)


def resolve_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a path or URI, and the path within it, special characters unchanged.

    Raises:
        ValueError: pyarrow has no such filesystem.
    """
    uri = _REMOTE.fullmatch(path)
    if not uri:
        return fs.LocalFileSystem(), path
    root, inside = uri["root"], uri["path"] or ""
    # Only the bucket goes through the URI parser: keys may hold blanks, quotes and per cent signs.
    filesystem, base = fs.FileSystem.from_uri(f"{uri['scheme']}://{root or '/'}{uri['query'] or ''}")
    return filesystem, (inside if base in ("", "/") else base.rstrip("/") + inside)


def read_bytes(path: str) -> bytes:
    """Reads all of a small file at a path or URI.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    filesystem, inside = resolve_filesystem(path)
    with filesystem.open_input_stream(inside, compression=None) as stream:
        return stream.read()
