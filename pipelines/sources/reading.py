"""Reading shared by several sources: annotation files, files of one video, frames; errors say how to mend them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.errors import BadItem, DamagedFile, LayoutError
from pipelines.files import Folder, safe_name
from pipelines.images import checked_size
from pipelines.safety.limits import MAX_ANNOTATION_BYTES
from pipelines.sources.csv_table import csv_lines
from sgmg.json_text import parse_json

_DIGITS = 18  # of a number that fits into 64 bits
_UNREADABLE = (FileNotFoundError, PermissionError)  # Others, such as network errors, are raised: a retry may succeed.


def checked_split(dataset: str, split: str, choices: Sequence[str]) -> None:
    """Checks that the dataset has the split.

    Raises:
        LayoutError: the split is none of the choices; the message lists them.
    """
    if split not in choices:
        raise LayoutError(f"{dataset} has no split {split!r}. Choose one of: {', '.join(choices)}.")


def annotation_text(root: Folder, name: str, encoding: str = "utf-8-sig") -> str:
    """Returns the text of an annotation file.

    Raises:
        LayoutError: the file cannot be read, or has another encoding.
    """
    try:
        if (size := root.size(name)) > MAX_ANNOTATION_BYTES:
            raise LayoutError(
                f"{root.path(name)} has {size} bytes, but at most {MAX_ANNOTATION_BYTES} are read. Download it again."
            )
        data = root.read(name)
    except _UNREADABLE as error:
        raise LayoutError(f"{error} Point --raw at the folder that holds {name}, and check --dataset.") from error
    except DamagedFile as error:
        raise LayoutError(str(error)) from error
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LayoutError(
            f"{root.path(name)}, line {line}: byte {data[error.start]:#04x} is not {encoding}. Save the file as UTF-8."
        ) from error


def annotation_json(
    root: Folder,
    name: str,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Returns the content of a JSON file; the hooks are those of `json.loads`.

    Raises:
        LayoutError: the file cannot be read, or is no JSON.
    """
    text = annotation_text(root, name)
    try:
        return parse_json(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError as error:
        raise LayoutError(
            f"{root.path(name)} is no JSON ({error}). It may be cut short: unpack or download it again."
        ) from error


def annotation_list(root: Folder, name: str) -> list[Any]:
    """Returns the content of a JSON file that holds a list.

    Raises:
        LayoutError: the file cannot be read, or is no JSON list.
    """
    found = annotation_json(root, name)
    if not isinstance(found, list):
        raise LayoutError(f"{root.path(name)} holds a {type(found).__name__}, not a list. Download it again.")
    return found


def annotation_rows(root: Folder, name: str, columns: Sequence[str]) -> list[list[str]]:
    """Returns these columns of a CSV file, a list for each line that is not blank.

    Raises:
        LayoutError: the file cannot be read, lacks a column, has another one, or has a row of another length.
    """
    rows, path = [], root.path(name)
    for line in csv_lines(annotation_text(root, name), path, columns, strict=False):
        if line.problem:
            raise LayoutError(f"{path}, line {line.number} {line.problem}")
        rows.append([line.values[column] for column in columns])
    return rows


def whole_number(text: str) -> int | None:
    """Returns the number that a text spells in digits 0 … 9; None if it spells none, or one beyond 64 bits.

    >>> whole_number("007"), whole_number("-1"), whole_number("9" * 19)
    (7, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def checked_video(video: str) -> None:
    """Checks that the name of a video, from an annotation file, does not lead out of its folder.

    Raises:
        BadItem: the name leads out of its folder.
    """
    try:
        safe_name(video)
    except ValueError as error:
        raise BadItem(video, "list", str(error)) from error


def item_bytes(root: Folder, name: str, video: str) -> bytes:
    """Returns all bytes of a file that belongs to one video.

    Raises:
        BadItem: the file cannot be read; the reason contains its full path.
    """
    try:
        return root.read(name)
    except _UNREADABLE as error:
        raise BadItem(video, "read", f"{error} Unpack the dataset again.") from error
    except DamagedFile as error:
        raise BadItem(video, "read", str(error)) from error


def image_frames(root: Folder, names: Sequence[str], video: str) -> tuple[tuple[bytes, ...], tuple[int, int]]:
    """Returns the bytes of a video's frames as stored, and their common (width, height).

    Raises:
        BadItem: there are no frames, one is missing or damaged, or their sizes differ.
    """
    frames, size = [], (0, 0)
    for name in names:
        data = item_bytes(root, name, video)
        try:
            found = checked_size(data)
        except ValueError as error:
            raise BadItem(video, "decode", f"{root.path(name)}: {error}. Unpack it again.") from error
        if frames and found != size:
            raise BadItem(
                video,
                "decode",
                f"{root.path(name)} has size {found}, the frames before it {size}. Give all frames one size.",
            )
        frames.append(data)
        size = found
    if not frames:
        raise BadItem(video, "list", f"no frame is listed or found in {root.path()}. Unpack the video again.")
    return tuple(frames), size
