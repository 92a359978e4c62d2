"""A zip that is read as if it was a folder: nothing is unpacked."""

import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, cast

from pipelines.errors import DamagedFile, LayoutError
from pipelines.files import Folder, is_hidden, number_order, parent_and_name, safe_name
from pipelines.safety.limits import MAX_ENTRY_BYTES
from pipelines.safety.zips import DAMAGE, stored_names, unpacked

_NO_ZIP = (FileNotFoundError, *(one for one in DAMAGE if one is not OSError))  # the network may be there again later


_FROM_MACOS = "__MACOSX"


@dataclass(frozen=True, repr=False)
class ZipFolder(Folder):
    """A folder in a zip at a local path or a URI, for sources to read from.

    Args:
        uri: of the zip.
        inside: path of the folder in the zip; empty for its root.
        stamp: what changes when the zip does, so that one of another time is opened anew.
    """

    inside: str = ""
    stamp: str = ""

    @classmethod
    def of(cls, uri: str, holding: str) -> "ZipFolder":
        """Returns the folder that holds a file: the zip's root, or the one folder that the zip was made of.

        Args:
            uri: of the zip.
            holding: name of the file; if it is in neither, the root is returned.

        Raises:
            LayoutError: the file is no zip.
        """
        zipped = Folder(uri)
        info = zipped.filesystem.get_file_info(zipped.path())
        root = cls(uri, stamp=f"{info.size} {info.mtime_ns}")
        inner = [root.folder(name) for name in root.names() if name != _FROM_MACOS]
        return inner[0] if len(inner) == 1 and not root.has(holding) and inner[0].has(holding) else root

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri, "inside": self.inside, "stamp": self.stamp}

    def path(self, name: str = "") -> str:
        """Returns the path of a name, as if the zip was a folder, for messages.

        Raises:
            ValueError: the name would leave the folder.
        """
        return "/".join(filter(None, (super().path(), self.inside, name and safe_name(name))))

    def folder(self, name: str) -> "ZipFolder":
        """Returns a folder inside this one."""
        return ZipFolder(self.uri, self._entry(name), self.stamp)

    def read(self, name: str) -> bytes:
        """Reads all bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFile: it is damaged, encrypted, or larger than `MAX_ENTRY_BYTES`.
        """
        archive = _opened(self.uri, self.stamp)
        try:
            return unpacked(archive.files, archive.stored[self._entry(name)], MAX_ENTRY_BYTES)
        except KeyError as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist.") from error
        except ValueError as error:
            raise DamagedFile(f"{self.path(name)}: {error}. Make the zip again, or unpack it.") from error

    def size(self, name: str) -> int:
        """Returns the unpacked size of a file in bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        archive = _opened(self.uri, self.stamp)
        try:
            return archive.files.getinfo(archive.stored[self._entry(name)]).file_size
        except KeyError as error:
            raise FileNotFoundError(f"{self.path(name)} does not exist.") from error

    def has(self, name: str) -> bool:
        """Returns whether a file or folder of that name exists."""
        above, _, base = self._entry(name).rpartition("/")
        return base in _opened(self.uri, self.stamp).names.get(above, ())

    def names(self, name: str = "", suffix: str = "", *, hidden: bool = False) -> list[str]:
        """Lists the names directly in a folder, in `number_order`; empty if the folder does not exist."""
        found = _opened(self.uri, self.stamp).names.get(self._entry(name) if name else self.inside, ())
        kept = (one for one in found if one.endswith(suffix) and (hidden or not is_hidden(one)))
        return sorted(kept, key=number_order)

    def _entry(self, name: str) -> str:
        return f"{self.inside}/{safe_name(name)}".lstrip("/")


@dataclass(frozen=True, slots=True)
class _Archive:
    """An opened zip, the stored names of its entries, and the names that are directly in each of its folders."""

    files: zipfile.ZipFile
    stored: dict[str, str]
    names: dict[str, set[str]]


@lru_cache(maxsize=2)
def _opened(uri: str, _stamp: str) -> _Archive:
    """Opens a zip, once in a process: its list of names is read at every opening."""
    parent, name = parent_and_name(uri)
    try:
        files = zipfile.ZipFile(cast(IO[bytes], Folder(parent).open(name)))
    except _NO_ZIP as error:
        raise LayoutError(f"{uri} is no zip, or cut short ({error}). Make it again, or unpack it.") from error
    names: dict[str, set[str]] = defaultdict(set)
    stored = stored_names(files)
    for entry in stored:
        parts = entry.rstrip("/").split("/")
        for depth in range(len(parts)):
            names["/".join(parts[:depth])].add(parts[depth])
    return _Archive(files, stored, dict(names))
