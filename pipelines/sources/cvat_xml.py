"""Parser of "CVAT for video 1.1" XML: a track of polygons or masks for every object, by number of the frame."""

import io
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import msgspec
import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from pipelines.errors import LayoutError
from pipelines.sources.label_annotations import TEXT_KEYS
from sgmg.masks import Size, mask_to_rle

_ID_KEY = "expression_id"
"""Attribute of our own export with the id of a sentence."""
_AGAIN = 'Export the task again as "CVAT for video 1.1".'


@dataclass(frozen=True, slots=True)
class CvatTrack:
    """One track.

    Attributes:
        shapes: masks as JSON text, by number of the frame from which they hold; none where the object is not visible.
        texts: values of its attributes that hold sentences, or else its label.
        group: id of the group that it is in; empty if it is in none.
        expression: id of its sentence; empty if it has none, or several.
    """

    id: int
    label: str
    shapes: dict[int, list[str]]
    texts: list[str]
    group: str = ""
    expression: str = ""


@dataclass(slots=True)
class CvatTask:
    """Content of the XML of a task.

    Attributes:
        name: of the task.
        source: file name of the video; empty if the task is of images.
        frames: number of its first frame in the video, count, and step; None if the file does not say.
        is_ours: whether our own export wrote it: the task has no id, and counts the frames that were predicted.
        size: (width, height) of the frames; None if the file does not say.
        dropped: what was left out: reason, and what.
        problem: what is wrong with a track; empty if nothing is.
    """

    name: str = ""
    source: str = ""
    frames: tuple[int, int, int] | None = None
    is_ours: bool = False
    size: tuple[int, int] | None = None
    tracks: list[CvatTrack] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""


def read_task(data: bytes, path: str) -> CvatTask:
    """Reads the XML of one task.

    Args:
        data: the file.
        path: of the file, for messages.

    Raises:
        LayoutError: it is no XML, declares entities, or has another layout.
    """
    task, tags, depth = CvatTask(), Counter(), 0
    try:
        for event, element in iterparse(io.BytesIO(data), events=("start", "end"), forbid_dtd=True):
            depth += 1 if event == "start" else -1
            if event == "start":
                _check_place(element, depth, path)
            elif depth == 1:
                if element.tag == "meta":
                    _read_meta(task, element, path)
                elif element.tag == "track":
                    _read_track(task, element)
                elif element.tag == "tag":
                    tags[element.get("label", "")] += 1
                element.clear()
    except DefusedXmlException as error:
        raise LayoutError(
            f"{path} declares a document type or entities, which are not read, since they may name other files. "
            f"Remove the declaration. {_AGAIN}"
        ) from error
    except ParseError as error:
        raise LayoutError(f"{path} is no XML, or cut short ({error}). {_AGAIN}") from error
    task.dropped += [("tag of a frame", f"{label}, {count} times") for label, count in tags.items()]
    return task


def _check_place(element: Element, depth: int, path: str) -> None:
    """Checks that the root and what is directly in it belong to the format."""
    if depth == 1 and element.tag != "annotations":
        raise LayoutError(f"{path} begins with <{element.tag}>, not with <annotations>, as CVAT's do. {_AGAIN}")
    if depth == 2 and element.tag not in ("version", "meta", "track", "tag"):
        kind = ', as "CVAT for images 1.1" does' if element.tag == "image" else ""
        raise LayoutError(f'{path} holds <{element.tag}>{kind}; "CVAT for video 1.1" has none. {_AGAIN}')


def _read_meta(task: CvatTask, meta: Element, path: str) -> None:
    if meta.find("project") is not None:
        raise LayoutError(f"{path} is the export of a project, <project>. Export its tasks one by one.")
    about = meta.find("task")
    about = meta.find("job") if about is None else about
    task.source = (meta.findtext("source") or "").strip()
    if about is None:
        return
    task.name, task.is_ours = (about.findtext("name") or "").strip(), about.find("id") is None
    task.source = task.source or (about.findtext("source") or "").strip()
    original = meta.find("original_size") if about.find("original_size") is None else about.find("original_size")
    try:
        if original is not None:
            task.size = _whole(original.findtext("width")), _whole(original.findtext("height"))
        if about.findtext("size"):
            start = _whole(about.findtext("start_frame") or "0")
            step = (about.findtext("frame_filter") or "").strip()
            task.frames = (start, _whole(about.findtext("size")), _whole(step.removeprefix("step=") or "1"))
    except ValueError as error:
        task.problem = f"<meta>: {error}"


def _read_track(task: CvatTask, track: Element) -> None:
    """Adds a track to the task; a track without polygon or mask is dropped, and so are its other shapes."""
    id, label = track.get("id", ""), track.get("label", "")
    shapes: dict[int, list[str]] = {}
    others: Counter[str] = Counter()
    try:
        for shape in track:
            if shape.tag in ("polygon", "mask"):
                held = shapes.setdefault(_whole(shape.get("frame")), [])
                held += [] if shape.get("outside") == "1" else [_text(shape)]
            elif shape.tag != "attribute":
                others[shape.tag] += 1
        number = _whole(id)
    except ValueError as error:
        task.problem = task.problem or f"track {id!r} ({label}): {error}"
        return
    task.dropped += [(f"{tag}, which is no mask", f"track {id}, {count} times") for tag, count in others.items()]
    if not shapes:
        return
    said = [text for key in TEXT_KEYS for text in _values(track, key)]
    texts = list(dict.fromkeys(said)) or ([label] if label.strip() else [])
    ids = set(_values(track, _ID_KEY))
    if texts:
        group = track.get("group_id", "0")
        id = ids.pop() if len(ids) == len(texts) == 1 else ""
        task.tracks.append(CvatTrack(number, label, shapes, texts, "" if group == "0" else group, id))
    else:
        task.dropped.append(("track without label or sentence", f"track {id}"))


def _values(track: Element, key: str) -> list[str]:
    """Returns the values of an attribute, by its name in lower case, in the shapes of a track; empty ones left out."""
    named = (one for one in track.iter("attribute") if (one.get("name") or "").lower() == key)
    return [text for one in named if (text := (one.text or "").strip())]


def joined_masks(tracks: Iterable[CvatTrack]) -> list[CvatTrack]:
    """Joins tracks of one frame that have one group, label and sentence: CVAT makes a track of every mask.

    >>> masks = {0: ["a"], 1: []}, {1: ["b"]}
    >>> tracks = [CvatTrack(id, "cat", shapes, ["cat"], "7") for id, shapes in enumerate(masks)]
    >>> [(one.id, one.shapes) for one in joined_masks(tracks)]
    [(0, {0: ['a'], 1: ['b']})]
    """
    joined: dict[Hashable, CvatTrack] = {}
    for place, track in enumerate(tracks):
        short = len(track.shapes) == 1 or (len(track.shapes) == 2 and not track.shapes[max(track.shapes)])
        key = (track.group, track.label, track.expression, *track.texts) if track.group and short else place
        one = joined.setdefault(key, replace(track, shapes={}))
        for frame, texts in track.shapes.items():
            one.shapes.setdefault(frame, []).extend(texts)
    return list(joined.values())


def _text(shape: Element) -> str:
    """Returns a shape as JSON text: a polygon as COCO has it, a mask as an object of its attributes."""
    if shape.tag == "polygon":
        points = (shape.get("points") or "").replace(";", ",").split(",")
        return msgspec.json.encode([[float(value) for value in points]]).decode()
    names = ("left", "top", "width", "height")
    runs = [_whole(run) for run in (shape.get("rle") or "").split(",")]
    return msgspec.json.encode({**{name: _whole(shape.get(name)) for name in names}, "rle": runs}).decode()


def _whole(value: str | None) -> int:
    text = (value or "").strip()
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{value!r} should be a whole number from 0")
    return int(text)


def cvat_mask_to_rle(mask: Any, size: Size) -> str:
    """Converts a mask of CVAT to COCO's compressed RLE.

    Its runs, background first, go along the rows of a box: left, top, width, height in pixels of the frame.

    >>> cvat_mask_to_rle({"left": 1, "top": 0, "width": 1, "height": 2, "rle": [0, 2]}, (2, 2))
    '22'

    Raises:
        ValueError: the runs do not fill the box, or the box leaves the frame.
    """
    left, top, width, height = (mask[name] for name in ("left", "top", "width", "height"))
    if left + width > size[1] or top + height > size[0]:
        raise ValueError(f"its box {left}, {top}, {width}, {height} leaves the frame of {size[1]}x{size[0]}")
    if (filled := sum(mask["rle"])) != width * height:
        raise ValueError(f"its runs fill {filled} pixels, but its box has {width * height}")
    runs = np.array(mask["rle"], dtype=np.int64)
    pixels = np.zeros(size, dtype=np.bool_)
    pixels[top : top + height, left : left + width] = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(
        height, width
    )
    return mask_to_rle(pixels)
