"""Parser of Label Studio's JSON export: tasks, and the brushes and texts of their regions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from pipelines.errors import Dropped, LayoutError
from pipelines.files import Folder
from pipelines.sources.label_annotations import NO_TEXT, texts_in
from pipelines.sources.label_files import json_content, text_of
from pipelines.sources.labels import LabelledObject, VideoLabels, sentences_of

_BRUSHES = ("brushlabels", "brush")


class _Value(msgspec.Struct):
    format: str | None = None
    rle: msgspec.Raw = msgspec.Raw(b"null")
    brushlabels: Any = None
    text: Any = None
    frame: int | None = None


class _Result(msgspec.Struct):
    type: str
    value: _Value
    id: str = ""
    original_width: int | None = None
    original_height: int | None = None
    image_rotation: float | None = None
    meta: Any = None


class _Annotation(msgspec.Struct):
    result: list[msgspec.Raw]
    id: int | str | None = None
    was_cancelled: bool | None = None
    ground_truth: bool | None = None


class _Task(msgspec.Struct):
    data: dict[str, Any]
    annotations: list[_Annotation]
    id: int | str | None = None


def label_studio_labels(data: bytes, folder: Folder, name: str) -> tuple[list[tuple[str, VideoLabels]], list[Dropped]]:
    """Returns the labels of every task with a brush, and the tasks without.

    Args:
        data: the file.
        folder: of the file, for messages.
        name: of the file.

    Raises:
        LayoutError: the file is no export of Label Studio.
    """
    path = folder.path(name)
    tasks = json_content(data, list[_Task], path, "Label Studio's JSON", ())
    labels: list[tuple[str, VideoLabels]] = []
    dropped: list[Dropped] = []
    for number, task in enumerate(tasks):
        picture = next((task.data[key] for key in ("image", "video") if isinstance(task.data.get(key), str)), None)
        if picture is None:
            keys = ", ".join(task.data) or "no key"
            raise LayoutError(
                f"{path}: the data of task {number} have neither image nor video, but {keys}. Name the variable so in "
                f"the labelling interface, and export again."
            )
        is_filmed = "image" not in task.data
        try:
            source = _path(picture)
        except ValueError as error:
            problem = f"the picture of task {task.id}, {picture[:100]!r}, is no path or URL ({error}). Mend it there."
            labels.append((f"task {task.id}", VideoLabels(name, problem=problem)))
            continue
        one = _labels(name, task, is_filmed)
        if one is None:
            dropped.append(Dropped(source, "task without brush", f"task {task.id}"))
            continue
        one = replace(one, names=[source], frames=None if is_filmed else [source])
        labels.append((PurePosixPath(source).with_suffix("").as_posix(), one))
    return labels, dropped


def _labels(file: str, task: _Task, is_filmed: bool) -> VideoLabels | None:
    """Returns the labels of a task; None if it has no brush."""
    whole = [one for one in task.annotations if not one.was_cancelled]
    chosen = next((one for one in whole if one.ground_truth), whole[0] if whole else None)
    if chosen is None:
        return None
    others = [("further annotation of a task", f"annotation {one.id}") for one in whole if one is not chosen]
    try:
        results = [msgspec.json.decode(raw, type=_Result) for raw in chosen.result]
    except (msgspec.DecodeError, RecursionError) as error:
        return VideoLabels(file, problem=f"a result of task {task.id}: {error}. Mend it, or export it again.")
    brushes = [one for one in results if one.type in _BRUSHES and text_of(one.value.rle)]
    if not brushes:
        return None
    sizes = {(one.original_width, one.original_height) for one in brushes}
    if len(sizes) > 1 or any(one.image_rotation for one in brushes):
        what = f"has the sizes {sorted(map(str, sizes))}" if len(sizes) > 1 else "was painted on a turned image"
        return VideoLabels(file, problem=f"task {task.id} {what}. Turn the image itself, and paint it again.")
    regions: dict[str, list[_Result]] = {}
    for place, one in enumerate(brushes):
        regions.setdefault(one.id or f"result {place}", []).append(one)
    objects, texts, dropped = _objects(regions, _typed_texts(results), is_filmed)
    width, height = sizes.pop()
    return VideoLabels(
        file, objects, sentences_of(texts), size=(width, height) if width and height else None, dropped=others + dropped
    )


def _objects(
    regions: Mapping[str, Sequence[_Result]], typed: Mapping[str, list[str]], is_filmed: bool
) -> tuple[list[LabelledObject], dict[int, list[str]], list[tuple[str, str]]]:
    """Returns the objects of regions, their texts, and what was left out."""
    objects: list[LabelledObject] = []
    texts: dict[int, list[str]] = {}
    dropped: list[tuple[str, str]] = []
    for id, (region, brushes) in enumerate(regions.items(), start=1):
        labels = [text for one in brushes for text in texts_in(one.value.brushlabels)]
        said = typed.get(region) or labels
        masks: dict[int, list[str]] = {}
        for one in brushes:
            if is_filmed and not (one.value.frame and one.value.frame > 0):
                dropped.append(("brush without frame", f"region {region}"))
                continue
            index = (one.value.frame or 1) - 1 if is_filmed else 0
            masks.setdefault(index, []).append(f'{{"rle":{text_of(one.value.rle)}}}')
        if not said:
            dropped.append((NO_TEXT, f"region {region}"))
        elif masks:
            objects.append(LabelledObject(id, masks, labels[0] if labels else ""))
            texts[id] = said
    return objects, texts, dropped


def _typed_texts(results: Iterable[_Result]) -> dict[str, list[str]]:
    """Returns the texts that were typed for each region."""
    typed: dict[str, list[str]] = {}
    for one in results:
        said = texts_in(one.value.text) if one.type == "textarea" else []
        said += texts_in(one.meta.get("text")) if isinstance(one.meta, dict) else []
        typed.setdefault(one.id, []).extend(said)
    return typed


def _path(url: str) -> str:
    """Returns the path that a task gives of its picture, without what Label Studio adds before it.

    >>> _path("/data/upload/1/0a1b2c3d-cat.jpg"), _path("/data/local-files/?d=a/cat.jpg"), _path("s3://bucket/a/cat.jpg")
    ('0a1b2c3d-cat.jpg', 'a/cat.jpg', 'a/cat.jpg')

    Raises:
        ValueError: there is no path in it.
    """
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    path = local[0] if local else unquote(parts.path)
    path = re.sub(r"^data/upload/[^/]+/", "", path.lstrip("/"))
    if not PurePosixPath(path).name:
        raise ValueError("it names no file")
    return path
