"""Folders on any filesystem of pyarrow: names cannot leave them, and files are written whole or not at all."""

import errno
import os
import random
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipelines.errors import DamagedFile
from pipelines.safety.secrets import redacted, with_credentials

UNFINISHED = ".unfinished-"
"""Prefix of the names of files that are still being written; readers ignore them."""

READERS = 32
"""Small files that are read at the same time, where there are many: each may be a request to a store far away."""

_OBJECT_STORES = ("s3", "gcs", "abfs")
_OPTIONS = (
    r"\?(?:region|scheme|endpoint_override|allow_\w+|tls_\w+|project_id|retry_limit_seconds"
    r"|access_key|secret_key|session_token)=[^/]*"
)
_REMOTE = re.compile(rf"(?P<scheme>\w[\w+.-]*)://(?P<root>[^/]*)(?P<path>/.*?)?(?P<query>{_OPTIONS})?", re.DOTALL)
_BUSY = re.compile(
    r"AWS Error (SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|NETWORK_CONNECTION|THROTTLING)"
    r"|HTTP (status|response code)\D*(429|50[0234])|\b(UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED)\b"
)
"""Errors of a store that may pass: it is too busy, or the network broke."""
_STORE = re.compile(r"AWS Error|\bHTTP\b|When \w+ing |google::|Azure|too busy|\berrno\b", re.IGNORECASE)
"""Errors on the way to a file."""
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between two tries, give or take half."""
_NUMBER = re.compile(r"([0-9]+)")
_OPTION_VALUES = {"true": True, "false": False, "1": True, "0": False}
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""Errors of the system that say that there is no such file, whose name may come out of an annotation."""
_IN_MEMORY, _PIECE = 64 * 2**20, 8 * 2**20
"""Bytes of a file that are kept in memory until it is uploaded, and of a piece of the upload."""

S = TypeVar("S")
T = TypeVar("T")
_guard, _retries = threading.Lock(), [0]


def at_once(read: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yields what `read` returns for each item, in order; `READERS` calls run at the same time, in threads."""
    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(read, items)


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


def is_safe_name(name: str) -> bool:
    """Returns whether `safe_name` takes a name.

    >>> is_safe_name("a/b.png"), is_safe_name("../b.png")
    (True, False)
    """
    try:
        safe_name(name)
    except ValueError:
        return False
    return True


def leads_back(folder: str) -> bool:
    """Returns whether a local folder is a link to a folder above it, where a walk would have no end."""
    path = Path(folder)
    return path.is_symlink() and any(path.samefile(above) for above in path.parents)


def number_order(name: str) -> tuple[tuple[int, str, str] | str, ...]:
    """Returns a sort key by which numbers in names count by value: frame_9 comes before frame_10, 9 before 10 before b.

    >>> sorted(["f10.png", "b", "f9.png", "10", "9"], key=number_order)
    ['9', '10', 'b', 'f9.png', 'f10.png']
    """
    # Text and numbers alternate, so that equal types are compared; more digits without leading zeros are a larger
    # number, whatever its length; 7 before 07 keeps the order total.
    parts = _NUMBER.split(name)
    return tuple(
        (len(part.lstrip("0")), part.lstrip("0"), part) if place % 2 else part for place, part in enumerate(parts)
    )


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden, as `._00001.jpg` of macOS is: its name begins with one dot."""
    return len(name) > 1 and name.startswith(".") and not name.startswith("..")


def is_litter(name: str) -> bool:
    """Returns whether a file is one that macOS or Windows leaves in any folder, so that nobody misses it."""
    return name.startswith("._") or name in (".DS_Store", "Thumbs.db", "desktop.ini")


def is_uri(path: str) -> bool:
    """Returns whether a path names its filesystem, as s3://… does; any other is a path of this machine."""
    return "://" in path


@dataclass(frozen=True)
class Folder:
    """A folder at a local path or a URI (s3://, gs://, …). Sent to workers as its URI.

    On an object store no folder is ever created and nothing is renamed: a file is uploaded when it is complete, in one
    request if it is smaller than 10 MB (pyarrow's limit), else in parts. Requests that the store refuses for now are
    repeated (`storage_retries` counts them).
    """

    uri: str

    @cached_property
    def _located(self) -> tuple[fs.FileSystem, str]:
        if self.is_local:
            return fs.LocalFileSystem(), str(Path(self.uri).expanduser().resolve())
        if self.scheme == "file":
            return fs.FileSystem.from_uri(self.uri)  # such URIs are percent-encoded
        filesystem, path = resolve_filesystem(self.uri)
        return filesystem, path.rstrip("/")

    def __repr__(self) -> str:
        return f"Folder(uri={redacted(self.uri)!r})"  # Ray prints arguments of tasks

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # Filesystem handles are opened where they are used.

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)

    @property
    def is_local(self) -> bool:
        """Whether the folder is at a path of this machine, so that `pathlib` can take it."""
        return not is_uri(self.uri)

    @property
    def is_object_store(self) -> bool:
        """Whether the folder is a prefix of keys in an object store, where nothing can be renamed."""
        return self.filesystem.type_name in _OBJECT_STORES

    @property
    def scheme(self) -> str:
        """Part of the URI before the colon, such as `s3`; empty for a local path."""
        return "" if self.is_local else self.uri.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of its path, as it was given."""
        return without_options(self.uri).rstrip("/").rpartition("/")[2]

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

    def uri_of(self, name: str) -> str:
        """Returns the path or URI of a name in the folder, before the options that the folder's URI may end with.

        >>> Folder("s3://bucket/runs?region=eu-west-1").uri_of("a/b.json")
        's3://bucket/runs/a/b.json?region=eu-west-1'

        Raises:
            ValueError: the name would leave the folder.
        """
        return join_uri(self.uri, safe_name(name))

    def folder(self, name: str) -> "Folder":
        """Returns a folder inside this one."""
        return Folder(self.uri_of(name))

    def read(self, name: str) -> bytes:
        """Reads all bytes of a file.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """

        def read() -> bytes:
            with self.filesystem.open_input_file(self.path(name)) as file:  # a stream would ask for every 256 kB
                return file.read()

        with self._missing_named(name):
            return _patiently(read)

    def read_if_there(self, name: str) -> bytes | None:
        """Reads all bytes of a file; None if there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Returns whether a file or folder of that name exists."""
        return self._type_and_size(name)[0] != fs.FileType.NotFound

    def names(self, name: str = "", suffix: str = "", *, hidden: bool = False) -> list[str]:
        """Lists the names directly in a folder, in `number_order`; empty if the folder does not exist.

        Args:
            name: of the folder.
            suffix: that the names end with.
            hidden: whether hidden names count (`is_hidden`).
        """
        return [info.base_name for info in self._listed(name, suffix, hidden=hidden)]

    def files(self, name: str = "", suffix: str = "") -> dict[str, int]:
        """Lists the files directly in a folder that `names` lists, and their sizes in bytes, in `number_order`."""
        return {one.base_name: one.size for one in self._listed(name, suffix) if one.type == fs.FileType.File}

    def _listed(self, name: str, suffix: str, *, hidden: bool = False) -> list[fs.FileInfo]:
        found = (one for one in self._list(name) if hidden or not is_hidden(one.base_name))
        ending = (one for one in found if one.base_name.endswith(suffix))
        return sorted(ending, key=lambda one: number_order(one.base_name))

    def _list(self, name: str, *, unfinished: bool = False) -> list[fs.FileInfo]:
        """Lists what is directly in a folder: what is whole, or what is still being written."""
        selector = fs.FileSelector(self.path(name), allow_not_found=True)
        try:
            found = _patiently(lambda: self.filesystem.get_file_info(selector))
        except pa.ArrowInvalid:
            return []
        except OSError as error:
            if not _says_missing(error):
                raise
            return []
        return [one for one in found if one.base_name.startswith(UNFINISHED) is unfinished]

    def files_within(self, suffix: str = "") -> list[str]:
        """Lists the paths of the files in the folder and in all below it, in `number_order`, without hidden ones.

        Folders that are links are followed, unless they lead back to a folder above them.

        Args:
            suffix: with which names end, in small or capital letters.
        """
        if self.is_local:

            def fail(error: OSError) -> None:
                raise error

            found: list[str] = []
            for place, folders, files in os.walk(self.path(), onerror=fail, followlinks=True):
                folders[:] = [name for name in folders if not leads_back(f"{place}/{name}")]
                found += (Path(place, name).relative_to(self.path()).as_posix() for name in files)
        else:
            selector = fs.FileSelector(self.path(), recursive=True)
            infos = _patiently(lambda: self.filesystem.get_file_info(selector))
            start = len(self.path().rstrip("/")) + 1
            found = [one.path[start:] for one in infos if one.type == fs.FileType.File]
        shown = (name for name in found if not any(map(is_hidden, name.split("/"))))
        return sorted((name for name in shown if name.lower().endswith(suffix)), key=number_order)

    def open(self, name: str) -> pa.NativeFile:
        """Opens a file for random access, as Parquet needs it.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        with self._missing_named(name):
            return _patiently(lambda: self.filesystem.open_input_file(self.path(name)))

    @contextmanager
    def parquet(self, name: str, columns: Iterable[str] = ()) -> Iterator[pq.ParquetFile]:
        """Opens a Parquet file. A row group of an object store is read in one or two requests, not one a column.

        Args:
            name: of the file.
            columns: that it has to have.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
            DamagedFile: the file is damaged, as is seen here or while it is read inside the block.
        """
        options: Any = {"pre_buffer": self.is_object_store, "page_checksum_verification": True}
        try:
            with self.open(name) as source, pq.ParquetFile(source, **options) as parquet:
                if missing := sorted(set(columns) - set(parquet.schema_arrow.names)):
                    raise damaged_file(self.path(name), f"it has no column {', '.join(missing)}")
                yield parquet
        except (pa.ArrowException, UnicodeDecodeError, MemoryError, OSError) as error:
            is_ours = isinstance(error, MemoryError) and not self._is_absurd(error, name)
            if is_ours or (isinstance(error, OSError) and not _says_damaged(error)):
                raise
            raise damaged_file(self.path(name), error) from error

    def _is_absurd(self, error: MemoryError, name: str) -> bool:
        """Returns whether damage asked for memory: for far more than the file, and not the machine has too little."""
        asked = re.search(r"malloc of size (\d+)", str(error))
        return asked is not None and int(asked[1]) > 2**30 + 100 * self.size(name)

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes.

        Raises:
            FileNotFoundError: there is no such file; the message gives the full path.
        """
        kind, size = self._type_and_size(name)
        if kind != fs.FileType.File:
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.")
        return size

    def _type_and_size(self, name: str) -> tuple[fs.FileType, int]:
        try:
            found = _patiently(lambda: self.filesystem.get_file_info(self.path(name)))
        except OSError as error:
            if not _says_missing(error):
                raise
            return fs.FileType.NotFound, 0
        return found.type, found.size or 0

    def make(self) -> "Folder":
        """Creates the folder and its parents if they are missing. Returns the folder."""
        if not self.is_object_store:
            self.filesystem.create_dir(self.path(), recursive=True)
        return self

    @contextmanager
    def output(self, name: str) -> Iterator[pa.NativeFile]:
        """Opens a stream that becomes the file when the block ends without error; until then the name does not exist.

        Replaces an existing file. Of two concurrent writers of one name the last to end wins.

        Raises:
            OSError: the disk is full, permission is denied, or the store cannot be reached.
        """
        writing = self._uploaded(name) if self.is_object_store else self._renamed(name)
        with writing as stream:
            yield stream

    @contextmanager
    def _uploaded(self, name: str) -> Iterator[pa.NativeFile]:
        path = self.path(name)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as kept:
            yield pa.PythonFile(kept, mode="w")

            def upload() -> None:
                kept.seek(0)
                with self.filesystem.open_output_stream(path, compression=None) as stream:
                    shutil.copyfileobj(kept, stream, _PIECE)

            _patiently(upload)

    @contextmanager
    def _renamed(self, name: str) -> Iterator[pa.NativeFile]:
        filesystem, path = self.filesystem, self.path(name)
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
            OSError: the disk is full, permission is denied, or the store cannot be reached.
        """
        with self.output(name) as stream:
            stream.write(data)

    def remove_unfinished(self, name: str = "", of: str = "") -> None:
        """Removes the files of killed writers from a folder; no other writer may be active there.

        Args:
            name: of the folder.
            of: end of the file's name; others are left: they may still be written.
        """
        if self.is_object_store:  # writers leave none
            return
        for left in self._list(name, unfinished=True):
            if left.base_name.endswith(of):
                self.filesystem.delete_file(left.path)

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        """Deletes one file.

        Raises:
            FileNotFoundError: there is no such file, and that is not `missing_ok`.
        """
        with suppress(FileNotFoundError) if missing_ok else nullcontext():
            _patiently(lambda: self.filesystem.delete_file(self.path(name)))

    def remove_folder(self, name: str) -> None:
        """Deletes a folder and everything in it, if it exists; several processes may do so at once."""
        with suppress(FileNotFoundError):  # it never existed, or another process was faster
            _patiently(lambda: self.filesystem.delete_dir(self.path(name)))

    def download(self, out: Path) -> None:
        """Copies all files of the folder into a local folder, which is created if it is missing."""
        out.mkdir(parents=True, exist_ok=True)
        _patiently(lambda: fs.copy_files(self.path(), str(out), source_filesystem=self.filesystem))

    def upload(self, source: Path) -> None:
        """Copies all files of a local folder into this one, but for those that it has already in the same size."""
        selector = fs.FileSelector(self.path(), allow_not_found=True, recursive=True)
        there = {info.path: info.size for info in _patiently(lambda: self.filesystem.get_file_info(selector))}

        def copy(file: Path) -> None:
            name = file.relative_to(source).as_posix()
            if there.get(self.path(name)) != file.stat().st_size:
                self.write(name, file.read_bytes())

        for _ in at_once(copy, sorted(path for path in source.rglob("*") if path.is_file())):
            pass

    @contextmanager
    def _missing_named(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not _says_missing(error):
                raise
            raise FileNotFoundError(f"{self.path(name)} does not exist or is no file.") from error


def _says_missing(error: OSError) -> bool:
    """Returns whether an error says that there is no such file; its name may come out of an annotation."""
    return isinstance(error, FileNotFoundError) or error.errno in _MISSING or "is a directory" in str(error)


def _says_damaged(error: OSError) -> bool:
    """Returns whether an error is about the content of a Parquet file, and not about the way to it.

    pyarrow raises plain OSErrors for both; those of the system have a number, those of stores name their store.
    """
    return type(error) is OSError and error.errno is None and not _STORE.search(str(error))


def damaged_file(path: str, error: object) -> DamagedFile:
    """Makes the error of a Parquet file of ours that cannot be read, with what to do."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return DamagedFile(
        f"{path} is damaged or no Parquet file ({said}): remove it and run the job that wrote it again "
        f"(jobs/prepare.py, jobs/predict.py or jobs/annotate.py), which makes what is missing."
    )


def upload_files(sources: Iterable[Path], filesystem: fs.FileSystem, folder: str) -> None:
    """Copies local files, however large, in their order into a folder of a filesystem, which is created.

    Raises:
        OSError: the disk is full, permission is denied, or the store cannot be reached.
    """

    def copy(source: Path) -> None:
        fs.copy_files(str(source), f"{folder}/{source.name}", destination_filesystem=filesystem)

    _patiently(lambda: filesystem.create_dir(folder, recursive=True))  # object storage needs none, others do
    for source in sources:
        _patiently(partial(copy, source))


def uri_options(path: str) -> str:
    """Returns the options that a URI ends with, such as `?region=eu-west-1`; empty if there are none."""
    uri = _REMOTE.fullmatch(path)
    return (uri["query"] or "") if uri else ""


def without_options(path: str) -> str:
    """Returns a path or URI without the options that a URI may end with."""
    return path.removesuffix(uri_options(path))


def join_uri(folder: str, name: str) -> str:
    """Joins a name to the path or URI of a folder, before the options that a URI may end with."""
    return f"{without_options(folder).rstrip('/')}/{name}{uri_options(folder)}"


def parent_and_name(path: str) -> tuple[str, str]:
    """Splits a path or URI into its folder and its name.

    >>> parent_and_name("a.zip"), parent_and_name("/a.zip"), parent_and_name("s3://bucket/b/a.zip")
    (('.', 'a.zip'), ('/', 'a.zip'), ('s3://bucket/b', 'a.zip'))
    >>> parent_and_name("s3://bucket/a.zip?region=eu-west-1")
    ('s3://bucket?region=eu-west-1', 'a.zip')
    """
    parent, slash, name = without_options(path).rstrip("/").rpartition("/")
    return (parent or slash or ".") + uri_options(path), name


def resolve_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Returns the filesystem of a path or URI, and the path within it, special characters unchanged.

    Raises:
        ValueError: pyarrow has no such filesystem.
        JobError: its credentials were taken out of the URI, and are not known in this process.
    """
    uri = _REMOTE.fullmatch(with_credentials(path))
    if not uri:
        return fs.LocalFileSystem(), path
    inside = uri["path"] or ""
    try:
        filesystem, base = _open_filesystem(uri["scheme"], uri["root"], uri["query"] or "")
    except (OSError, ValueError) as error:
        if (shown := redacted(str(error))) == str(error):
            raise
        raise type(error)(shown) from None  # it quotes the URI
    return filesystem, (inside if base in ("", "/") else base.rstrip("/") + inside)


@lru_cache
def _open_filesystem(scheme: str, root: str, query: str) -> tuple[fs.FileSystem, str]:
    """Opens the filesystem of a bucket, once in a process: that may ask for the bucket's region."""
    if scheme == "s3":
        return _open_s3(root, query)
    # Only the bucket goes through the URI parser: keys may hold blanks, quotes and per cent signs.
    return _patiently(lambda: fs.FileSystem.from_uri(f"{scheme}://{root or '/'}{query}"))


def _open_s3(root: str, query: str) -> tuple[fs.FileSystem, str]:
    """Opens a bucket as pyarrow does by its URI, but small files are written in one request, and none is repeated.

    `_patiently` repeats requests: pyarrow by itself does so at a fixed pace, for six seconds, and does not count.
    """
    who, _, bucket = root.rpartition("@")
    options: dict[str, Any] = {name: _OPTION_VALUES.get(value, value) for name, value in parse_qsl(query[1:])}
    if who:
        options["access_key"], _, options["secret_key"] = (unquote(part) for part in who.partition(":"))
    if "region" not in options and "endpoint_override" not in options:
        options["region"] = _patiently(lambda: fs.resolve_s3_region(bucket))
    once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
    return fs.S3FileSystem(**{"allow_delayed_open": True, "retry_strategy": once, **options}), bucket


def read_bytes(path: str) -> bytes:
    """Reads all of a small file at a path or URI.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    filesystem, inside = resolve_filesystem(path)

    def read() -> bytes:
        with filesystem.open_input_file(inside) as file:
            return file.read()

    return _patiently(read)


def storage_retries() -> int:
    """Returns how many requests of this process were repeated since the last call, because a store was too busy."""
    with _guard:
        count, _retries[0] = _retries[0], 0
    return count


def _patiently(request: Callable[[], T]) -> T:
    """Returns the result of a request to a store; repeats it, later and later, while the store is too busy.

    Raises:
        OSError: the request failed for another reason, or again and again.
    """
    for wait in (*_WAITS, None):
        try:
            return request()
        except OSError as error:
            if not _BUSY.search(str(error)):
                raise
            if wait is None:
                raise OSError(
                    f"The storage was too busy {len(_WAITS) + 1} times in a row: {error} Start the same command again "
                    f"later; the run goes on where it was."
                ) from error
            with _guard:
                _retries[0] += 1
            time.sleep(wait * random.uniform(0.5, 1.5))
    raise AssertionError("the last try returns or raises")
