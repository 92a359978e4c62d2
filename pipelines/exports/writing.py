"""Outputs of exports: zips, folders and JSON files that are streamed, and appear only when they are complete."""

import glob
import json
import os
import re
import shutil
import tempfile
import uuid
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np

from pipelines.files import UNFINISHED, Folder, is_litter, safe_name

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Add = Callable[[str, bytes], None]
"""Writes one file of an archive or folder: its name, with `/` between folders, and its bytes."""

_PIECE = 8 * 2**20
"""Bytes of a file that are copied at a time."""
_DRAFT = re.compile(rf"{re.escape(UNFINISHED)}[0-9a-f]{{32}}-")


@contextmanager
def checked_output(out: Folder, name: str) -> Iterator[tuple[Folder, str]]:
    """Yields the folder and the name to write a file or folder under, which may be read back before it is published.

    It becomes `name` of the folder `out`, in place of an older one, when the block ends without error; else it is
    removed, and the older one stays. Until then it has a name that readers ignore; in an object store, where nothing
    can be renamed, it is on this machine, and is uploaded in the end.

    Raises:
        OSError: the disk is full, permission is denied, or the store cannot be reached.
    """
    if out.is_object_store:
        with tempfile.TemporaryDirectory() as here:
            yield Folder(here), name
            with Path(here, name).open("rb") as source, out.output(name) as stream:
                shutil.copyfileobj(source, stream, _PIECE)
        return
    _remove_drafts(out, name)
    draft = f"{UNFINISHED}{uuid.uuid4().hex}-{name}"
    try:
        yield out, draft
        if out.is_local and Path(out.path(draft)).is_dir():
            _replace_folder(Path(out.path(name)), Path(out.path(draft)))
        else:
            out.filesystem.move(out.path(draft), out.path(name))
    finally:
        with suppress(OSError):  # what stays has the name of a draft, and the next writer removes it
            _remove(out, draft)


def _remove_drafts(out: Folder, name: str) -> None:
    """Removes what killed writers of a file or folder left; no other writer of that name may be active."""
    if not out.is_local:
        out.remove_unfinished(of=f"-{name}")
        return
    for path in Path(out.path()).glob(f"{UNFINISHED}*-{glob.escape(name)}"):
        _remove(out, path.name)


def _remove(out: Folder, name: str) -> None:
    """Removes a file or a local folder, if it is there."""
    if out.is_local and Path(out.path(name)).is_dir():
        shutil.rmtree(out.path(name))
    else:
        out.remove(name, missing_ok=True)


def _replace_folder(final: Path, new: Path) -> None:
    """Renames a local folder to its final name, in place of an older one, which comes back if that fails."""
    older = final.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{final.name}.older")
    if final.exists():
        final.rename(older)
    try:
        new.rename(final)
    except BaseException:
        if older.exists():
            older.rename(final)
        raise
    shutil.rmtree(older, ignore_errors=True)


@contextmanager
def zip_output(out: Folder, name: str) -> Iterator[Add]:
    """Opens a zip that appears when the block ends without error. Equal entries give equal bytes.

    Raises:
        OSError: the disk is full, or permission is denied.
    """
    out.remove_unfinished(of=f"-{name}")
    with out.output(name) as stream, zipfile.ZipFile(cast(IO[bytes], stream), "w") as archive:

        def add(entry: str, data: bytes) -> None:
            info = zipfile.ZipInfo(safe_name(entry))  # its time is always 1980-01-01
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, on any system
            # Deflated although PNGs hardly shrink: a stream may not hold stored entries of unknown size.
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)

        yield add


@contextmanager
def folder_output(out: Folder, name: str, ours: Callable[[str], bool]) -> Iterator[Add]:
    """Opens a local folder that appears when the block ends without error, and replaces an older one.

    Args:
        name: of the folder, or of its draft (`checked_output`).
        ours: tells whether a name is one of this export; a folder with other names is not replaced.

    Raises:
        ValueError: the folder is not local, an existing folder of that name holds other files, or a file has the name.
    """
    if not out.is_local:
        raise ValueError(
            f"{out.uri}/{name} is not local, so it cannot be replaced as a whole. Choose {name}.zip instead."
        )
    final = Path(out.path(_DRAFT.sub("", name, count=1)))
    if final.is_file():
        raise ValueError(f"{final} is a file, which would be lost. Choose another folder.")
    if foreign := sorted(one.name for one in final.glob("*") if not ours(one.name) and not is_litter(one.name)):
        raise ValueError(f"{final} holds {', '.join(foreign[:5])}, which would be lost. Choose another folder.")
    staging = final.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{final.name}")

    def add(entry: str, data: bytes) -> None:
        path = staging / safe_name(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    try:
        staging.mkdir(parents=True)
        yield add
        _replace_folder(Path(out.path(name)), staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def json_output(out: Folder, name: str) -> Iterator[Callable[[str], None]]:
    """Opens a UTF-8 text file that appears when the block ends without error.

    Raises:
        OSError: the disk is full, or permission is denied.
    """
    out.remove_unfinished(of=f"-{name}")
    with out.output(name) as stream:

        def write(text: str) -> None:
            stream.write(text.encode())

        yield write


def write_list(write: Callable[[str], None], items: Iterable[Mapping[str, Any]]) -> int:
    """Writes a JSON list with one item per line, which can be read as a stream; returns the number of items."""
    return write_lines(write, map(to_line, items))


def to_line(item: Mapping[str, Any]) -> str:
    """Returns an item as `write_list` writes it."""
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def write_lines(write: Callable[[str], None], lines: Iterable[str]) -> int:
    """Writes a list of items that are JSON already; returns their number."""
    count = 0
    write("[")
    for count, line in enumerate(lines, start=1):
        write(",\n" if count > 1 else "\n")
        write(line)
    write("\n]")
    return count


def read_lines(out: Folder, name: str) -> Iterator[dict[str, Any]]:
    """Yields the items of lists written by `write_list`, line by line.

    Raises:
        ValueError: a line is not JSON, or the file is cut short.
    """
    buffered = b""
    with out.open(name) as stream:
        while part := stream.read(1 << 20):
            *lines, buffered = (buffered + part).split(b"\n")
            for line in lines:
                if line.startswith(b"{") and line.endswith((b"},", b"}")):
                    yield json.loads(line.removesuffix(b","))
    if buffered:
        raise ValueError(f"{out.path(name)} is cut short. Write it again.")


def in_order(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
    """Yields the function's results in the order of the items, computed by one thread per core, few items ahead."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def single(value: float) -> float:
    """Rounds a value to the shortest decimal of its 32-bit float, the precision of Parquet columns.

    >>> single(0.8999999761581421)
    0.9
    """
    return float(str(np.float32(value)))
