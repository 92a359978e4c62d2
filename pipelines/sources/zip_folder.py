"""A zip that is read as if it was a folder: nothing is unpacked."""

import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, cast

import pyarrow as pa

from pipelines.errors import LayoutError
from pipelines.files import Folder, is_hidden, number_order, parent_and_name, safe_name


@dataclass(frozen=True, repr=False)
class ZipFolder(Folder):
    """A folder in a zip at a local path or a URI, for sources to read from.

    Args:
        uri: of the zip.
        inside: path of the folder in the zip; empty for its root.
    """

    inside: str = ""

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri, "inside": self.inside}

    def path(self, name: str = "") -> str:
        """Returns the path of a name, as if the zip was a folder, for messages.

        Raises:
            ValueError: the name would leave the folder.
        """
        return "/".join(filter(None, (super().path(), self.inside, name and safe_name(name))))

    def folder(self, name: str) -> Folder:
        """Returns a folder inside this one."""
        return ZipFolder(self.uri, self._entry(name))

    def read(self, name: str) -> bytes:
        """Reads all bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        try:
            return _opened(self.uri).files.read(self._entry(name))
        except KeyError as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist.") from error

    def size(self, name: str) -> int:
        """Returns the unpacked size of a file in bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        try:
            return _opened(self.uri).files.getinfo(self._entry(name)).file_size
        except KeyError as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist.") from error

    def has(self, name: str) -> bool:
        """Returns whether a file or folder of that name exists."""
        above, _, base = self._entry(name).rpartition("/")
        return base in _opened(self.uri).names.get(above, ())

    def names(self, name: str = "", suffix: str = "", *, hidden: bool = False) -> list[str]:
        """Lists the names directly in a folder, in `number_order`; empty if the folder does not exist."""
        found = _opened(self.uri).names.get(self._entry(name) if name else self.inside, ())
        kept = (one for one in found if one.endswith(suffix) and (hidden or not is_hidden(one)))
        return sorted(kept, key=number_order)

    def _entry(self, name: str) -> str:
        return f"{self.inside}/{safe_name(name)}".lstrip("/")


@dataclass(frozen=True, slots=True)
class _Archive:
    """An opened zip, and the names that are directly in each of its folders."""

    files: zipfile.ZipFile
    names: dict[str, set[str]]


@lru_cache(maxsize=2)
def _opened(uri: str) -> _Archive:
    """Opens a zip, once in a process: its list of names is read at every opening."""
    parent, name = parent_and_name(uri)
    try:
        files = zipfile.ZipFile(cast(IO[bytes], Folder(parent).open(name)))
    except (zipfile.BadZipFile, FileNotFoundError, pa.ArrowInvalid) as error:
        raise LayoutError(f"{uri} is no zip, or cut short ({error}). Make it again, or unpack it.") from error
    names: dict[str, set[str]] = defaultdict(set)
    for entry in files.namelist():
        parts = entry.rstrip("/").split("/")
        for depth in range(len(parts)):
            names["/".join(parts[:depth])].add(parts[depth])
    return _Archive(files, dict(names))
