"""What Label Studio reads and writes: its labelling configuration, masks and boxes in its JSON.

Its documentation: labelstud.io/guide/predictions, /tags/brush, /tags/video, /tags/videorectangle.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
import pycocotools.mask
from defusedxml import DefusedXmlException

Json = dict[str, Any]
RUN_BITS = (3, 4, 8, 16)
"""Bits of the length of a run in Label Studio's run-length code; each run says which of them it uses."""
FRAME_RATE = 24.0
"""Frames a second of a video whose tag <Video> has no frameRate."""
_TAGS = {"Image": ("BrushLabels", "RectangleLabels"), "Video": ("VideoRectangle",)}


class AdapterError(Exception):
    """A request or a task that cannot be answered; the text says why, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Control:
    """A tag of the labelling configuration that regions are drawn with.

    Attributes:
        kind: BrushLabels, RectangleLabels or VideoRectangle.
        name: of the tag, `from_name` of its regions.
        labels: that a region may have.
    """

    kind: str
    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Medium:
    """The image or video of a labelling configuration.

    Attributes:
        kind: Image or Video.
        name: of the tag, `to_name` of its regions.
        key: of its address in the data of a task.
        frame_rate: as the tag gives it: a number, a key of the task's data after a $, or empty.
        controls: what regions are drawn with on it.
    """

    kind: str
    name: str
    key: str
    frame_rate: str
    controls: tuple[Control, ...]

    def drawn_with(self, sentence: str) -> list[Control]:
        """Returns the controls that have a sentence as a label; all of them if none has."""
        return [one for one in self.controls if sentence in one.labels] or list(self.controls)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the service found in one image or video.

    Attributes:
        video: width, height (pixels), seconds and so on.
        frames: one line of the service for each frame and sentence.
    """

    video: Json
    frames: list[Json]

    def found(self, sentence: int) -> list[Json]:
        """Returns the frames in which an object was found for a sentence."""
        return [one for one in self.frames if one["sentence"] == sentence and one["box"]]


def read_configuration(xml: str) -> Medium:
    """Returns what a labelling configuration shows, and with what regions are drawn on it.

    Raises:
        AdapterError: it is no XML, or has no image or video with a control that we can answer.
    """
    try:
        root = defusedxml.ElementTree.fromstring(xml)
    except (ParseError, DefusedXmlException) as error:
        raise AdapterError(f"The labelling configuration cannot be read: {error}.") from error
    for tag in (one for one in root.iter() if one.tag in _TAGS):
        controls = tuple(
            Control(one.tag, one.get("name", ""), _labels(root, one))
            for one in root.iter()
            if one.tag in _TAGS[tag.tag] and one.get("toName") == tag.get("name")
        )
        if controls:
            rate = tag.get("frameRate") or tag.get("framerate") or ""
            return Medium(tag.tag, tag.get("name", ""), tag.get("value", "").lstrip("$"), rate, controls)
    raise AdapterError(
        "The labelling configuration has no <Image> with <BrushLabels> or <RectangleLabels>, and no <Video> with "
        "<VideoRectangle>. Add one of them."
    )


def _labels(root: Element, control: Element) -> tuple[str, ...]:
    """Returns the labels of a control. Those of VideoRectangle stand in a tag <Labels> of the same video."""
    groups = [control]
    if control.tag == "VideoRectangle":
        groups = [one for one in root.iter("Labels") if one.get("toName") == control.get("toName")]
    return tuple(label.get("value", "") for group in groups for label in group.iter("Label"))


def sentences_of(data: Mapping[str, Any], medium: Medium) -> list[str]:
    """Returns what a task is asked for: its own sentences, or else the labels, without repetitions.

    Raises:
        AdapterError: there are none.
    """
    for key in ("sentence", "sentences", "text"):
        if own := data.get(key):
            sentences = [own] if isinstance(own, str) else own
            if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
                raise AdapterError(f"`{key}` of a task must be a text or a list of texts (got {own!r}).")
            return list(dict.fromkeys(sentences))
    labels = [label for control in medium.controls for label in control.labels]
    if not labels:
        raise AdapterError("Give the task a `sentence`, or the labelling configuration labels.")
    return list(dict.fromkeys(labels))


def frame_rate_of(medium: Medium, data: Mapping[str, Any]) -> float:
    """Returns the frames a second that Label Studio counts in a task's video.

    Raises:
        AdapterError: it is no number above 0.
    """
    given = medium.frame_rate
    value = data.get(given[1:], "") if given.startswith("$") else given or FRAME_RATE
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise AdapterError(f"frameRate of <Video> must be a number above 0 (got {value!r} for {given!r}).")
    return rate


def encode_brush(mask: np.ndarray) -> list[int]:
    """Returns a mask in Label Studio's run-length code.

    The code is that of thi.ng's rle-pack, over the four values RGBA of all pixels, row by row. It begins with the
    number of values in 32 bits, the bits of a value less 1 in 5, and the RUN_BITS less 1 in 4 each. Then come the runs:
    a 1 for values that are equal, 2 bits that say which of RUN_BITS follows, the length less 1, and the value.

    Args:
        mask: height x width, 0 where the object is not.

    Returns:
        Bytes of the code.
    """
    values = np.repeat(np.where(mask.ravel(), 255, 0), 4)
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, values.size)
    bits = [f"{values.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        bits += [f"1{length}{values[start]:08b}" for length in _lengths(int(end - start))]
    code = "".join(bits)
    code += "0" * (-len(code) % 8)
    return list(int(code, 2).to_bytes(len(code) // 8, "big"))


def _lengths(run: int) -> Iterator[str]:
    """Yields the length of a run in bits, in as many parts as the largest of RUN_BITS makes of it."""
    while run > 0:
        part = min(run, 2 ** RUN_BITS[-1])
        which = next(place for place, size in enumerate(RUN_BITS) if part <= 2**size)
        yield f"{which:02b}{part - 1:0{RUN_BITS[which]}b}"
        run -= part


def image_regions(medium: Medium, sentences: Sequence[str], answers: Answers) -> list[Json]:
    """Returns a region for each sentence that was found, and each control that it is drawn with."""
    regions = []
    for number, sentence in enumerate(sentences):
        for one in answers.found(number):
            for control in medium.drawn_with(sentence):
                if control.kind == "BrushLabels":
                    value = {"format": "rle", "rle": encode_brush(_decoded(one["rle"]))}
                else:
                    value = {**_percent(one["box"], answers.video), "rotation": 0}
                region = _region(medium, control, sentence, value, one["score"])
                size = {"original_width": answers.video["width"], "original_height": answers.video["height"]}
                regions.append({**region, **size, "image_rotation": 0})
    return regions


def video_regions(medium: Medium, sentences: Sequence[str], answers: Answers, frame_rate: float) -> list[Json]:
    """Returns a region for each sentence that was found, and each control that it is drawn with.

    Args:
        medium: of the labelling configuration.
        sentences: that were asked.
        answers: of the service.
        frame_rate: frames a second that Label Studio counts.
    """
    count = max(1, round(answers.video["seconds"] * frame_rate))
    regions = []
    for number, sentence in enumerate(sentences):
        if not (found := answers.found(number)):
            continue
        value = {
            "framesCount": count,
            "duration": answers.video["seconds"],
            "sequence": _sequence(found, answers.video, frame_rate, count),
        }
        score = float(np.mean([one["score"] for one in found]))
        regions += [_region(medium, control, sentence, value, score) for control in medium.drawn_with(sentence)]
    return regions


def _sequence(found: Sequence[Json], video: Mapping[str, Any], frame_rate: float, count: int) -> list[Json]:
    """Returns key frames, counted from 1. The last before a frame without object is not enabled, which ends the box."""
    keys: dict[int, Json] = {}
    there = {one["frame"] for one in found}
    for one in found:
        frame = min(round(one["time"] * frame_rate) + 1, count)
        keys[frame] = {
            "frame": frame,
            "time": frame / frame_rate,
            "enabled": one["frame"] + 1 in there or one["frame"] + 1 == video["frames"],
            "rotation": 0,
            **_percent(one["box"], video),
        }
    return list(keys.values())


def _decoded(rle: Mapping[str, Any]) -> np.ndarray:
    """Returns the mask of a line of the service: height x width."""
    height, width = rle["size"]
    return pycocotools.mask.decode({"size": [height, width], "counts": rle["counts"].encode()})


def _region(medium: Medium, control: Control, sentence: str, value: Json, score: float) -> Json:
    label = sentence if sentence in control.labels else next(iter(control.labels), None)
    key = "labels" if control.kind == "VideoRectangle" else control.kind.lower()
    return {
        "id": secrets.token_hex(5),
        "type": control.kind.lower(),
        "from_name": control.name,
        "to_name": medium.name,
        "value": {**value, key: [label] if label else []},
        "score": score,
        "meta": {"text": [sentence]},
    }


def _percent(box: Sequence[float], video: Mapping[str, Any]) -> dict[str, float]:
    """Returns x, y, width and height in percent of a box of corners x1, y1, x2, y2 in pixels."""
    x1, x2 = (100 * min(max(x / video["width"], 0), 1) for x in box[::2])
    y1, y2 = (100 * min(max(y / video["height"], 0), 1) for y in box[1::2])
    return {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
