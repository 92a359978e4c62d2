"""Where exports go: zips, folders and JSON files of any length that are written as they come, whole or not at all."""

import json
import os
import shutil
import uuid
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np

from pipelines.files import UNFINISHED, Folder, safe_name

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Add = Callable[[str, bytes], None]
"""Writes one file of an archive or folder: its name, with `/` between folders, and its bytes."""


@contextmanager
def zip_output(out: Folder, name: str) -> Iterator[Add]:
    """A zip that appears when the block ends without error. The same entries give the same bytes at any time.

    Raises:
        OSError: there is no room, or no permission.
    """
    _remove_unfinished(out, name)
    with out.output(name) as stream, zipfile.ZipFile(cast(IO[bytes], stream), "w") as archive:

        def add(entry: str, data: bytes) -> None:
            info = zipfile.ZipInfo(safe_name(entry))  # its time is 1980-01-01, never the clock's
            info.create_system, info.external_attr = 3, 0o644 << 16  # as Unix writes it, on any system
            # Deflated although PNGs hardly shrink: an entry of unknown size in a stream may not be a stored one.
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)

        yield add


@contextmanager
def folder_output(out: Folder, name: str, ours: Callable[[str], bool]) -> Iterator[Add]:
    """A local folder of files that appears, whole, when the block ends without error.

    Args:
        ours: which names an earlier run may have left in it: a folder with others is not replaced.

    Raises:
        ValueError: it is not local, or a folder of that name holds something else.
    """
    if not out.is_local:
        raise ValueError(f"{out.uri}/{name} is no local folder and cannot appear at once. Ask for {name}.zip instead.")
    final = Path(out.path(name))
    if foreign := sorted(path.name for path in final.glob("*") if not ours(path.name)):
        raise ValueError(f"{final} holds {', '.join(foreign[:5])}, which would be lost. Name a folder of its own.")
    aside, old = (final.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{final.name}") for _ in range(2))

    def add(entry: str, data: bytes) -> None:
        path = aside / safe_name(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    try:
        aside.mkdir(parents=True)
        yield add
        if final.exists():
            final.rename(old)
        aside.rename(final)
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def json_output(out: Folder, name: str) -> Iterator[Callable[[str], None]]:
    """A text file, in UTF-8, that appears when the block ends without error.

    Raises:
        OSError: there is no room, or no permission.
    """
    _remove_unfinished(out, name)
    with out.output(name) as stream:

        def write(text: str) -> None:
            stream.write(text.encode())

        yield write


def write_list(write: Callable[[str], None], items: Iterable[Mapping[str, Any]]) -> int:
    """A JSON list, one item a line, so that it can be read without holding it; returns how many there were."""
    count = 0
    write("[")
    for count, item in enumerate(items, start=1):
        write(",\n" if count > 1 else "\n")
        write(json.dumps(item, ensure_ascii=False, separators=(",", ":")))
    write("\n]")
    return count


def read_lines(out: Folder, name: str) -> Iterator[dict[str, Any]]:
    """The items of the lists that `write_list` wrote, line by line.

    Raises:
        ValueError: a line is no JSON, or the last one has no end.
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
    """The function's results in the order of the items, worked out by a thread a core, never many ahead."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def parent_and_name(path: str) -> tuple[str, str]:
    """The folder that a path or URI lies in, and its name there.

    >>> parent_and_name("a.zip"), parent_and_name("/a.zip"), parent_and_name("s3://bucket/b/a.zip")
    (('.', 'a.zip'), ('/', 'a.zip'), ('s3://bucket/b', 'a.zip'))
    """
    parent, slash, name = path.rstrip("/").rpartition("/")
    return parent or slash or ".", name


def single(value: float) -> float:
    """A float that Parquet kept in 32 bits, with no more digits than it had.

    >>> single(0.8999999761581421)
    0.9
    """
    return float(str(np.float32(value)))


def _remove_unfinished(out: Folder, name: str) -> None:
    """Removes what a killed writer of this very file left; that of other files may still be in work."""
    for left in out.names(suffix=f"-{name}"):
        if left.startswith(UNFINISHED):
            out.remove(left)
