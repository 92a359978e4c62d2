"""Raw folders, local or on any filesystem pyarrow knows, read by names that cannot leave them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs


def safe_name(name: str) -> str:
    """The name of a video, frame or file that came out of an annotation, if it stays inside the folder it is put in.

    >>> safe_name("-davisCamel")
    '-davisCamel'

    Raises:
        ValueError: it is empty, absolute, or holds `..`, a backslash, a drive letter or a control character.
    """
    path = PurePosixPath(name)
    odd = not name or path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":"
    if odd or any(ord(letter) < 32 for letter in name):
        raise ValueError(f"The name {name!r} would leave its folder. Mend it in the annotations.")
    return name


@dataclass(frozen=True)
class Folder:
    """A folder at a local path or a URI (s3://, gs://, …). Sent to workers as its URI."""

    uri: str

    @cached_property
    def _located(self) -> tuple[fs.FileSystem, str]:
        if "://" in self.uri:
            return fs.FileSystem.from_uri(self.uri)
        return fs.LocalFileSystem(), str(Path(self.uri).expanduser().resolve())

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # Filesystem handles are opened where they are used.

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    def path(self, name: str = "") -> str:
        """The full path of something in the folder, for messages and for the filesystem.

        Raises:
            ValueError: the name would leave the folder.
        """
        root = self._located[1]
        return f"{root}/{safe_name(name)}" if name else root

    def folder(self, name: str) -> "Folder":
        """A folder inside."""
        return Folder(f"{self.uri.rstrip('/')}/{safe_name(name)}")

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        try:
            with self._located[0].open_input_stream(self.path(name), compression=None) as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.") from error

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self._located[0].get_file_info(self.path(name)).type != fs.FileType.NotFound

    def names(self, name: str = "", suffix: str = "") -> list[str]:
        """Sorted names of what lies directly in a folder, those that end so; none where there is no folder."""
        selector = fs.FileSelector(self.path(name), allow_not_found=True)
        try:
            found = self._located[0].get_file_info(selector)
        except (NotADirectoryError, pa.ArrowInvalid):
            return []
        return sorted(info.base_name for info in found if info.base_name.endswith(suffix))
