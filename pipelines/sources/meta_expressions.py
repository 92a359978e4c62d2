"""Reader of `meta_expressions.json`, the frames and sentences of every video, of Ref-YouTube-VOS and MeViS.

`{"videos": {video: {"frames": [name, …], "expressions": {id: {"exp": text, …}}}}}` (spec data.md §1).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, Dropped, LayoutError, shown
from pipelines.files import Folder, safe_name
from pipelines.sources.base import Item
from pipelines.sources.reading import annotation_json, checked_video

EMPTY = "empty expression"


@dataclass(frozen=True, slots=True)
class MetaExpression:
    """One expression as listed; `entry` holds the keys that only its dataset has, such as `obj_id`."""

    id: str
    text: str
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """The checked entry of one video: names of the frames and sentences, in the order of the file."""

    frame_names: tuple[str, ...]
    sentences: tuple[MetaExpression, ...]
    dropped: tuple[Dropped, ...]


def read_json(root: Folder, name: str) -> dict[str, Any]:
    """Reads a JSON object. A key that occurs twice in one object gets None, which callers report if they need it.

    Raises:
        LayoutError: the file cannot be read, or is no JSON object in UTF-8.
    """
    path, found = root.path(name), annotation_json(root, name, object_pairs_hook=_without_repeated)
    if not isinstance(found, dict):
        raise LayoutError(f"{path} holds a {type(found).__name__}, not an object. Check --dataset.")
    return found


def read_videos(root: Folder, name: str) -> dict[str, Any]:
    """Returns the object "videos" of a `meta_expressions.json` or `meta.json`, unchecked.

    Raises:
        LayoutError: the file cannot be read, or has no object "videos".
    """
    videos = read_json(root, name).get("videos")
    if not isinstance(videos, dict):
        raise LayoutError(f'{root.path(name)} has no object "videos", or has it twice. Check --dataset.')
    return videos


def check_images(root: Folder, folder: str, items: list[Item]) -> list[Item]:
    """Returns the items unchanged, after checking that at least one of them has images.

    Raises:
        LayoutError: the folder of images cannot be read, or holds none of the videos.
    """
    try:
        with_images = set(root.names(folder))
    except PermissionError as error:
        raise LayoutError(f"{error} Make {root.path(folder)} readable for this user.") from error
    if not any(item.video.partition("/")[0] in with_images for item in items):
        raise LayoutError(
            f"{root.path(folder)} holds none of the {len(items)} videos that are listed. Unpack them there, or check "
            f"--dataset."
        )
    return items


def checked(video: str, entry: Any, path: str) -> Listed:
    """Checks the entry of one video. `path` is the path of the file, for messages.

    Raises:
        BadItem: a key is missing, has a value of another type, or is repeated; or there are no frames or no
            expressions.
    """
    checked_video(video)
    frames = typed(video, entry, "frames", list, path)
    if not frames:
        raise BadItem(video, "list", f'{path} lists no frames for it under "frames". Add them or take the video out.')
    if not all(isinstance(name, str) for name in frames) or len(set(frames)) < len(frames):
        raise BadItem(video, "list", f'{path}: "frames" should be names, each once, but is {shown(frames)}.')
    for name in frames:
        try:
            safe_name(name)
        except ValueError as error:
            raise BadItem(video, "list", f"{path}: {error}") from error
    expressions = typed(video, entry, "expressions", dict, path)
    if not expressions:
        raise BadItem(video, "list", f"{path} lists no expressions for it. Add them or take the video out.")
    sentences, dropped = [], []
    for id, expression in expressions.items():
        text = typed(video, expression, "exp", str, f"{path}, expression {id!r}")
        if text.strip():
            sentences.append(MetaExpression(id, text, expression))
        else:
            dropped.append(Dropped(video, EMPTY, f"expression {id}"))
    return Listed(tuple(frames), tuple(sentences), tuple(dropped))


def typed(video: str, entry: Any, key: str, kind: type, where: str) -> Any:
    """Returns one value of a JSON object, after checking its type.

    Raises:
        BadItem: the entry is no object, or the value is missing, of another type, or repeated.
    """
    if not isinstance(entry, Mapping):
        raise BadItem(video, "list", f"{where} is no object, or occurs twice. It needs {key!r}, once.")
    if not isinstance(entry.get(key), kind):
        found = "missing" if key not in entry else "null, or there twice" if entry[key] is None else shown(entry[key])
        raise BadItem(video, "list", f"{where}: {key!r} should be a {kind.__name__}, but is {found}.")
    return entry[key]


def _without_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a JSON object in which the value of a repeated key is None."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        found |= {key: None for key, count in counts.items() if count > 1}
    return found
