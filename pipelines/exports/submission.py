"""Reading of submissions, as zips or folders of PNGs, without unpacking them to disk."""

import zipfile
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar, cast

import numpy as np
from jaxtyping import Bool, UInt8

from pipelines.exports.pngs import decode_mask, decode_object_map
from pipelines.files import Folder, is_hidden, number_order, parent_and_name, safe_name
from pipelines.safety.limits import MAX_MASK_BYTES
from pipelines.safety.zips import DAMAGE, bounded, stored_names, unpacked, with_slashes
from sgmg.masks import Size

_FROM_MACOS = "__MACOSX"
EXPRESSIONS = "expressions.csv"
"""Table beside the masks that says what they are of; no server wants it, but ours has it for annotated videos."""

ArrayT = TypeVar("ArrayT", bound=np.ndarray)
ArchiveFile = tuple[str, Callable[[], bytes]]
"""Name of a file, and a function that reads its bytes."""


@dataclass(frozen=True, slots=True)
class SubmittedMask:
    """One PNG of a Ref-YouTube-VOS or MeViS submission."""

    video: str
    expression: str
    frame: str
    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class SubmittedMap:
    """One PNG of a Ref-DAVIS17 submission: the object id of every pixel, for the texts of one annotator."""

    annotator: int
    video: str
    frame: str
    ids: UInt8[np.ndarray, "h w"]


def read_submission(
    path: str | Path, sizes: Mapping[str, Size] | None = None, videos: Container[str] | None = None
) -> Iterator[SubmittedMask]:
    """Yields the masks of a zip or folder `[Annotations/]<video>/<expression id>/<frame>.png`, sorted by name.

    All names are checked before the first mask is yielded; pixels are decoded one mask at a time.

    Args:
        path: local, or on any filesystem pyarrow knows.
        sizes: height and width by video; the frames of a video that is not listed must all have one size.
        videos: videos to yield; None yields all. Names are checked for all videos.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the zip is cut short; a name points outside of the folder, occurs twice or has another form; or a
            PNG is not of mode L with 0 and 255, or has another size. The message names the entry.
    """
    with submitted_files(path) as entries:
        # Both servers' layouts are read: they differ in the folder at the root only.
        masks = [name for name, _ in entries if name != EXPRESSIONS]
        inside = all(name.startswith("Annotations/") and name.count("/") == 3 for name in masks)
        layout = f"{'Annotations/' if inside else ''}<video>/<expression id>/<frame>.png"
        seen = dict(sizes or {})
        for parts, load in _in_layout(entries, layout, path):
            video, expression, frame = parts[-3:]
            if videos is not None and video not in videos:
                continue
            mask = _decoded(decode_mask, load, f"{path}, {'/'.join(parts)}.png", seen.get(video))
            height, width = mask.shape
            seen[video] = (height, width)
            yield SubmittedMask(video, expression, frame, mask)


def read_object_maps(
    path: str | Path, sizes: Mapping[str, Size] | None = None, videos: Container[str] | None = None
) -> Iterator[SubmittedMap]:
    """Yields the maps of a Ref-DAVIS17 zip or folder `anno_<0 … 3>/<video>/<frame>.png`, sorted by name.

    Args:
        path: local, or on any filesystem pyarrow knows; a folder is local.
        sizes, videos: as in `read_submission`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as in `read_submission`, but PNGs must be of mode P.
    """
    with submitted_files(path) as entries:
        seen = dict(sizes or {})
        for parts, load in _in_layout(entries, "anno_<k>/<video>/<frame>.png", path):
            annotator, video, frame = parts
            if annotator not in ("anno_0", "anno_1", "anno_2", "anno_3"):
                raise ValueError(f"{path} has a folder {annotator!r}, but only anno_0 … anno_3 are expected.")
            if videos is not None and video not in videos:
                continue
            ids = _decoded(decode_object_map, load, f"{path}, {'/'.join(parts)}.png", seen.get(video))
            height, width = ids.shape
            seen[video] = (height, width)
            yield SubmittedMap(int(annotator[-1]), video, frame, ids)


def name_order(name: str) -> tuple[tuple[tuple[int, str, str] | str, ...], ...]:
    """Returns a sort key for paths that compares folder by folder, numbers by value."""
    return tuple(number_order(part) for part in name.split("/"))


@contextmanager
def submitted_files(path: str | Path) -> Iterator[Sequence[ArchiveFile]]:
    """Opens a zip or local folder and yields its files, sorted, with checked names; hidden files are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a zip, is empty or cut short; or a name leaves the folder or occurs twice.
    """
    if Path(path).is_dir():
        found = {str(file.relative_to(path).as_posix()): file for file in Path(path).rglob("*") if file.is_file()}
        yield [(name, lambda name=name: _read(found[name])) for name in _checked_names(list(found), path)]
        return
    parent, base = parent_and_name(str(path))
    with Folder(parent).open(base) as file:
        try:
            archive = zipfile.ZipFile(cast(IO[bytes], file))
        except DAMAGE as error:
            raise ValueError(f"{path} is no zip, empty or cut short ({error}). Write or copy it again.") from error
        with archive:
            stored = stored_names(archive)
            names = [name for name in map(with_slashes, archive.namelist()) if not name.endswith("/")]
            checked = _checked_names(names, path)
            yield [(name, lambda name=name: unpacked(archive, stored[name], MAX_MASK_BYTES)) for name in checked]


def _checked_names(names: list[str], path: str | Path) -> list[str]:
    kept: list[str] = []
    for name in names:
        try:
            safe_name(name)
        except ValueError as error:
            raise ValueError(f"{path}: {error} Nothing of it was read.") from error
        parts = name.split("/")
        if parts[0] != _FROM_MACOS and not any(map(is_hidden, parts)):
            kept.append(name)
    if len(set(kept)) < len(kept):
        twice = next(name for name, count in Counter(kept).items() if count > 1)
        raise ValueError(f"{path} holds {twice!r} twice. Write it again.")
    if not kept:
        raise ValueError(f"{path} holds no files. Write it again.")
    return sorted(kept, key=name_order)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return bounded(stream, MAX_MASK_BYTES)


def _in_layout(
    entries: Sequence[ArchiveFile], layout: str, path: str | Path
) -> list[tuple[list[str], Callable[[], bytes]]]:
    """Splits names into parts, the last one without `.png`; all but the table must have the layout."""
    found = []
    for name, load in entries:
        if name == EXPRESSIONS:
            continue
        parts = name.split("/")
        fits = len(parts) == layout.count("/") + 1 and name.endswith(".png")
        if not fits or not all(part.strip(".") for part in parts):
            raise ValueError(
                f"{path} holds {name!r}, but {layout} is expected for every file. Zip it again in that layout."
            )
        found.append(([*parts[:-1], parts[-1].removesuffix(".png")], load))
    return found


def _decoded(
    decode: Callable[[bytes, Size | None], ArrayT], load: Callable[[], bytes], what: str, size: Size | None
) -> ArrayT:
    try:
        return decode(load(), size)
    except ValueError as error:
        raise ValueError(f"{what}: {error}.") from error
