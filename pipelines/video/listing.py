"""Resolution of patterns (globs, folders, lists, object storage) to videos, each with an id that is a safe file
name.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from pipelines.errors import BadItem
from pipelines.files import (
    is_hidden,
    is_uri,
    join_uri,
    leads_back,
    read_bytes,
    resolve_filesystem,
    uri_options,
    without_options,
)
from pipelines.safety.secrets import keep_credentials, redacted
from pipelines.video.suffixes import VIDEO_SUFFIXES, counted, is_image, is_video, suffix_of

LIST_SUFFIX = ".txt"

_MAGIC = re.compile(r"[*?\[]")
_WORTH_LISTING = 3
"""Files of one remote folder from which on the folder is listed: a request tells of a thousand files."""


@dataclass(frozen=True, slots=True)
class Video:
    """A video file, or a folder whose images are the frames.

    Args:
        path: absolute path, or a URI (s3://, gs://, file://), as the system spells it; not used to name output files.
        images: whether it is a folder of images.
        stamp: size and time of change when it was listed, as text; empty if unknown.
    """

    path: str
    images: bool = False
    stamp: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Last part of the path, for display."""
        return PurePosixPath(without_options(self.path)).name

    @property
    def id(self) -> str:
        """Name for output files and folders: letters, digits, `_` and `-`, different for each path.

        Depends only on the path, so that it does not change when videos are added or removed.

        >>> Video("/data/a b/Ünder…water.mp4").id
        'Under_water-d9d1332cf7'
        """
        stem = self.name if self.images else PurePosixPath(self.name).stem
        plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        readable = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:60] or "video"
        return f"{readable}-{hashlib.sha256(without_options(self.path).encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The videos that were found, sorted by path, and the errors of what could not be listed.

    `passed_over` counts the files of folders that are neither videos nor images, by suffix, and `thumbnails` the images
    beside video files. Hidden files do not count.
    """

    videos: tuple[Video, ...]
    problems: tuple[BadItem, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    thumbnails: int = 0

    @property
    def notes(self) -> list[str]:
        """Texts that say how many files of the folders were not taken; empty if all were."""
        notes = [counted(self.passed_over)] if self.passed_over else []
        if self.thumbnails:
            notes.append(f"{self.thumbnails} images lie beside video files and count as their thumbnails")
        return notes


def list_videos(patterns: str | Sequence[str]) -> Listing:
    """Lists the videos that match the patterns, each once. An error of one pattern does not affect the others.

    A pattern is a path or URI of a file, a folder (with everything below it), a `.txt` list (one pattern per line,
    relative to the list), or a glob of `*`, `?`, `[…]` and `**` (any folders). If a file or folder has exactly the name
    of the pattern, the pattern is taken literally; such a file is taken whatever its suffix, as it is by a glob that
    spells out the suffix. Otherwise only files with one of `VIDEO_SUFFIXES` count; a folder with images and no video
    file is one video; an image that matches a glob stands for its folder; hidden files and folders are skipped. Folders
    that are links are followed, unless they lead back to a folder above them.
    Object storage takes pyarrow's options, as in `s3://bucket/raw/**/*.mp4?region=eu-west-1`. Paths of videos hold no
    credentials; those of the lines of a list have to be kept before, see `keep_credentials_of_lists`.
    """
    found: dict[str, Video] = {}
    problems: list[BadItem] = []
    passed_over: Counter[str] = Counter()
    thumbnails = 0
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for one in _resolve(pattern, lists=True):
            if isinstance(one, _PassedOver):
                passed_over[one.suffix] += 1
            elif isinstance(one, _Thumbnails):
                thumbnails += one.count
            elif isinstance(one, BadItem):
                problems.append(one)
            elif not _encodable(one.path):
                shown = one.path.encode(errors="backslashreplace").decode()
                problems.append(BadItem(shown, "list", "its name is not UTF-8. Rename it."))
            else:
                found[one.path] = one
    return Listing(tuple(found[path] for path in sorted(found)), tuple(problems), dict(passed_over), thumbnails)


@dataclass(frozen=True, slots=True)
class _PassedOver:
    """A file of a folder that is no video and no image."""

    suffix: str


@dataclass(frozen=True, slots=True)
class _Thumbnails:
    """Images of a folder that holds video files."""

    count: int


_Found = Video | BadItem | _PassedOver | _Thumbnails


def keep_credentials_of_lists(patterns: Sequence[str]) -> None:
    """Keeps the credentials in the lines of lists for this process and the ones that it starts.

    Raises:
        JobError: other ones are known for the same store.
    """
    for pattern in patterns:
        if _is_list(pattern):
            try:
                keep_credentials(_lines(_absolute(pattern)), replace=False)
            except (OSError, ValueError):  # `list_videos` says so
                continue


def _absolute(path: str) -> str:
    return path if is_uri(path) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (no links followed)


def _is_list(pattern: str) -> bool:
    return PurePosixPath(without_options(pattern)).suffix.lower() == LIST_SUFFIX


def _lines(path: str) -> list[str]:
    return [name for line in read_bytes(path).decode("utf-8-sig").splitlines() if (name := line.strip())]


def _resolve(pattern: str, lists: bool) -> Iterator[_Found]:
    """Yields the videos of one pattern; errors are items too, so that the other patterns are still listed."""
    try:
        pattern = _absolute(pattern)
        filesystem, inside = resolve_filesystem(pattern)
        info = filesystem.get_file_info(inside) if _encodable(inside) else None
        kind = info.type if info else fs.FileType.File
        if kind == fs.FileType.Directory:
            found = _select_videos(pattern, _walk(filesystem, inside), re.compile(""), spelled=False)
        elif kind == fs.FileType.File:
            is_list = lists and _is_list(pattern)
            found = _listed(pattern) if is_list else [Video(pattern, stamp=_stamp(info) if info else "")]
        elif _MAGIC.search(inside):
            found = _matching(pattern)
        else:
            found = [BadItem(pattern, "list", "it does not exist. Mend the path, or take it out of the list.")]
        empty = True
        for one in found:
            empty = empty and isinstance(one, _PassedOver | _Thumbnails)
            yield one
        if empty:
            kinds = ", ".join(VIDEO_SUFFIXES)
            yield BadItem(pattern, "list", f"nothing there is a video ({kinds}, or a folder of images). Mend the path.")
    except (OSError, ValueError) as error:  # includes pyarrow's errors
        yield BadItem(pattern, "list", f"it cannot be listed ({error}). Check the path, rights and credentials.")


def _listed(path: str) -> Iterator[_Found]:
    """Yields the videos of the lines of a list."""
    folder = without_options(path).rpartition("/")[0] + uri_options(path)
    names = map(redacted, _lines(path))
    places = [
        name if is_uri(name) or Path(name).expanduser().is_absolute() else join_uri(folder, name) for name in names
    ]
    known = _files_beside(places)
    for place in places:
        if place in known:
            yield Video(place, stamp=_stamp(known[place]))
        else:
            yield from _resolve(place, lists=False)


def _files_beside(places: Sequence[str]) -> dict[str, fs.FileInfo]:
    """Returns what storage says of the remote files among many, with a request a folder instead of one a file."""
    beside: dict[str, list[str]] = {}
    for place in places:
        if is_uri(place) and not _MAGIC.search(place):
            folder = without_options(place).rpartition("/")[0] + uri_options(place)
            beside.setdefault(folder, []).append(place)
    known: dict[str, fs.FileInfo] = {}
    for folder, files in beside.items():
        if len(files) < _WORTH_LISTING:
            continue
        filesystem, inside = resolve_filesystem(folder)
        found = filesystem.get_file_info(fs.FileSelector(inside, allow_not_found=True))
        infos = {join_uri(folder, info.base_name): info for info in found if info.type == fs.FileType.File}
        known |= {place: infos[place] for place in files if place in infos}
    return known


def _stamp(info: fs.FileInfo) -> str:
    """Returns size and time of change of a file as text."""
    return f"{info.size}-{info.mtime_ns}"


def _matching(pattern: str) -> Iterator[_Found]:
    """Yields the videos that match a glob. Searches from the deepest folder without a wildcard."""
    query = uri_options(pattern)
    parts = without_options(pattern).split("/")
    fixed = next(place for place, part in enumerate(parts) if _MAGIC.search(part))
    folder, wild = "/".join(parts[:fixed]) or "/", parts[fixed:]
    suffix = PurePosixPath(wild[-1]).suffix
    spelled = bool(suffix) and not _MAGIC.search(suffix)
    deepest = len(wild) if spelled and "**" not in wild else None
    filesystem, inside = resolve_filesystem(folder + query)
    found = _walk(filesystem, inside, deepest)
    yield from _select_videos(folder + query, found, _expression(wild), spelled and not is_image(wild[-1]))


def _walk(filesystem: fs.FileSystem, folder: str, deepest: int | None = None) -> Iterator[tuple[str, str] | BadItem]:
    """Yields relative path and stamp of all files below a folder, sorted within each folder.

    Args:
        deepest: most parts of a path.
    """
    if not isinstance(filesystem, fs.LocalFileSystem):
        selector = fs.FileSelector(folder, recursive=deepest != 1)
        infos = (info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File)
        yield from sorted((info.path.removeprefix(folder.rstrip("/") + "/"), _stamp(info)) for info in infos)
        return
    failed: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=failed.append, followlinks=True):
        folders[:] = sorted(name for name in folders if not leads_back(f"{place}/{name}"))
        within = Path(place).relative_to(folder)
        if deepest is not None and len(within.parts) + 1 >= deepest:
            folders.clear()
        for name in sorted(files):
            yield str(within / name), _local_stamp(f"{place}/{name}")
    for error in failed:
        yield BadItem(
            str(error.filename), "list", f"the folder cannot be listed ({error.strerror}). Check path and rights."
        )


def _local_stamp(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path for each of 100 000 files takes longer)
    except OSError:  # gone meanwhile, or not for this user: decoding says so
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _select_videos(
    folder: str, files: Iterable[tuple[str, str] | BadItem], pattern: re.Pattern[str], spelled: bool
) -> Iterator[_Found]:
    """Yields the videos among files whose path or parent folder matches the pattern; the empty pattern matches all."""
    images: dict[str, Any] = {}  # folders, and a hash of their images
    counts: Counter[str] = Counter()  # images of each folder
    with_video_files: set[str] = set()  # folders
    for one in files:
        if isinstance(one, BadItem):
            yield one
            continue
        file, stamp = one
        path = PurePosixPath(file)
        if any(map(is_hidden, path.parts)):
            continue
        if is_video(file):
            with_video_files.add(str(path.parent))
        itself = pattern.fullmatch(file) is not None
        above = any(pattern.fullmatch(str(parent)) for parent in path.parents[:-1])
        if not (itself or above or not pattern.pattern):
            continue
        if is_image(file):
            digest = images.setdefault(str(path.parent), hashlib.sha256())
            digest.update(f"{path.name} {stamp}\n".encode(errors="surrogateescape"))
            counts[str(path.parent)] += 1
        elif is_video(file) or (spelled and itself):
            yield Video(join_uri(folder, file), stamp=stamp)
        else:
            yield _PassedOver(suffix_of(file))
    for place in sorted(images.keys() - with_video_files):
        stamp = images[place].hexdigest()[:32]
        yield Video(folder if place == "." else join_uri(folder, place), images=True, stamp=stamp)
    for place in sorted(images.keys() & with_video_files):
        yield _Thumbnails(counts[place])


def _expression(parts: Sequence[str]) -> re.Pattern[str]:
    """Converts the parts of a glob to a regular expression for paths."""
    pieces: list[str] = []
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            pieces.append(".*" if last else "(?:[^/]+/)*")
            continue
        found = re.sub(
            r"\*+|\?|\[[!^]?\]?[^\]]*\]|.",
            lambda token: {"*": "[^/]*", "?": "[^/]"}.get(token[0][0]) or _charset(token[0]),
            part,
            flags=re.DOTALL,
        )
        pieces.append(found if last else found + "/")
    return re.compile("".join(pieces), re.DOTALL)


def _charset(token: str) -> str:
    """Converts one character, or a set of them in square brackets, to a regular expression."""
    if len(token) == 1:
        return re.escape(token)
    inside, negated = (token[2:-1], "^") if token[1] in "!^" else (token[1:-1], "")
    return f"[{negated}{inside.translate({ord(odd): f'{chr(92)}{odd}' for odd in '[]^&~|' + chr(92)})}]"


def _encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
