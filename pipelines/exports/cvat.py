"""Masks as XML of the annotation tool CVAT, in the layout "CVAT for video 1.1", a file for each video.

CVAT has no tracks of masks. Its import keeps the first shape of such a track, and its own export makes a track of each
mask: the mask, and in the next frame a shape with `outside="1"`, which ends it. So does this one; `group_id` is the
same for all masks of an expression. (cvat/apps/dataset_manager/formats/cvat.py of CVAT 2)
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, cast
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from jaxtyping import Bool

from pipelines.exports.frame_files import frame_times
from pipelines.files import Folder, number_order
from pipelines.predictions import Prediction
from pipelines.safety.secrets import redacted_uri
from sgmg.masks import rle_area, rle_to_mask, rle_to_xyxy

CVAT = "cvat"
"""Folder, in that of a run, of a file for each video."""
EXPRESSION = "expression"
"""Attribute of a mask that holds the whole sentence."""
EXPRESSION_ID = "expression_id"
"""Attribute of a mask that holds the id of the sentence."""
LABEL_LETTERS = 64
"""Most letters of a label: CVAT refuses longer ones."""
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def write_cvat(out: Folder, name: str, video: str, segments: Iterable[Sequence[Prediction]]) -> int:
    """Writes the best query's masks of a video, and returns their number.

    Frames are counted from 0 in the order of the predicted frames, as CVAT counts the images of a task that was made of
    them. A sentence is the attribute `expression` of its masks, its id `expression_id`; their label is the sentence
    too, cut to 64 letters and different for different sentences. The file appears complete or not at all; memory holds
    two segments of predictions, and the names of the frames.

    Args:
        out: folder of the run.
        name: path of the file in it.
        video: id of the video, which becomes the name of the task.
        segments: for each segment, in order, the predictions of all expressions.

    Raises:
        ValueError: there are no predictions, or a mask is damaged.
    """
    writer = _Tracks()
    sample: Prediction | None = None
    # The file begins with what is known at the end: how many frames there are.
    with TemporaryFile() as body:
        for part, last in _with_last(segments):
            sample = sample or part[0]
            for line in writer.segment(part, last):
                body.write(line.encode())
        if sample is None:
            raise ValueError(f"{video} has no predictions. Leave it out.")
        body.seek(0)
        with out.output(name) as stream:
            stream.write(_head(video, sample, writer).encode())
            shutil.copyfileobj(body, cast(IO[bytes], stream), 2**20)
            stream.write(b"</annotations>\n")
    return writer.masks


def cvat_rle(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Returns the lengths of the runs of a mask, row by row: zeros, ones, zeros and so on; the first may be 0.

    >>> cvat_rle(np.array([[True, True], [False, True]]))
    [0, 2, 1, 1]
    """
    pixels = np.ascontiguousarray(mask).reshape(-1)
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()
    return [0, *runs] if pixels[0] else runs


@dataclass(slots=True)
class _Tracks:
    """The tracks so far: how many, the index of each frame, and the label and the group of each sentence.

    Attributes:
        labels: by the sentence.
        groups: by its id; the first is 1.
        ids: of the sentences.
    """

    masks: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def segment(self, part: Sequence[Prediction], last: bool) -> Iterator[str]:
        """Yields the tracks of a segment; `last` tells whether it is the last one of the video."""
        for name in frame_times(part):
            self.frames.setdefault(name, len(self.frames))
        for row in sorted(part, key=lambda one: number_order(one.expression)):
            label = self._label(row.text)
            group = self.groups.setdefault(row.expression, len(self.groups) + 1)
            id = self.ids.setdefault(row.text, row.expression)
            opened = f' label={_attribute(label)} source="auto" group_id="{group}">\n'
            sentence = (
                f'      <attribute name="{EXPRESSION}">{_text(row.text)}</attribute>\n'
                f'      <attribute name="{EXPRESSION_ID}">{_text(id)}</attribute>\n    </mask>\n'
            )
            for frame, rle in zip(row.frame_names, row.queries[0].rle, strict=True):
                if not rle_area(rle, (row.height, row.width)):
                    continue
                at = self.frames[frame]
                ends = not last or at + 1 < len(self.frames)
                shown = f'  <track id="{self.masks}"{opened}' + _shape(at, rle, row) + sentence
                yield shown + (_end(at + 1, rle, row) + sentence if ends else "") + "  </track>\n"
                self.masks += 1

    def _label(self, sentence: str) -> str:
        """Returns the label of a sentence, which no other sentence has."""
        if sentence not in self.labels:
            label, taken, number = _cut(sentence), set(self.labels.values()), 2
            while label in taken:
                label, number = _cut(sentence, f" ({number})"), number + 1
            self.labels[sentence] = label
        return self.labels[sentence]


def _head(video: str, sample: Prediction, tracks: _Tracks) -> str:
    """Returns the file up to the first track."""
    count = len(tracks.frames)
    labels = "".join(
        f"        <label>\n          <name>{_text(label)}</name>\n          <type>mask</type>\n"
        f"          <attributes>\n{_constant(EXPRESSION, sentence)}{_constant(EXPRESSION_ID, tracks.ids[sentence])}"
        f"          </attributes>\n        </label>\n"
        for sentence, label in tracks.labels.items()
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
        f"      <name>{_text(video)}</name>\n      <size>{count}</size>\n      <mode>interpolation</mode>\n"
        f"      <overlap>0</overlap>\n      <start_frame>0</start_frame>\n      <stop_frame>{count - 1}</stop_frame>\n"
        f"      <frame_filter></frame_filter>\n      <labels>\n{labels}      </labels>\n"
        f"      <original_size>\n        <width>{sample.width}</width>\n        <height>{sample.height}</height>\n"
        f"      </original_size>\n      <source>{_text(redacted_uri(sample.source))}</source>\n"
        f"    </task>\n  </meta>\n"
    )


def _constant(name: str, value: str) -> str:
    """Returns an attribute that is the same for all masks of a label."""
    return (
        f"            <attribute>\n              <name>{name}</name>\n"
        f"              <mutable>False</mutable>\n              <input_type>text</input_type>\n"
        f"              <default_value>{_text(value)}</default_value>\n"
        f"              <values>{_text(value)}</values>\n            </attribute>\n"
    )


def _shape(frame: int, rle: str, row: Prediction) -> str:
    """Returns the opening tag of a mask."""
    size = (row.height, row.width)
    left, top, right, bottom = rle_to_xyxy(rle, size)
    runs = cvat_rle(rle_to_mask(rle, size)[top : bottom + 1, left : right + 1])
    return _tag(frame, 0, ", ".join(map(str, runs)), (left, top, right - left + 1, bottom - top + 1))


def _end(frame: int, rle: str, row: Prediction) -> str:
    """Returns the opening tag of the shape that ends a mask: a pixel, since readers want some shape."""
    left, top, _, _ = rle_to_xyxy(rle, (row.height, row.width))
    return _tag(frame, 1, "0, 1", (left, top, 1, 1))


def _tag(frame: int, outside: int, rle: str, box: tuple[int, int, int, int]) -> str:
    left, top, width, height = box
    return (
        f'    <mask frame="{frame}" keyframe="1" outside="{outside}" occluded="0" rle="{rle}" left="{left}" '
        f'top="{top}" width="{width}" height="{height}" z_order="0">\n'
    )


def _cut(sentence: str, end: str = "") -> str:
    """Returns a sentence on one line, with an end, in at most `LABEL_LETTERS` letters."""
    words, most = " ".join(sentence.split()), LABEL_LETTERS - len(end)
    return (words if len(words) <= most else words[: most - 1] + "…") + end


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text), {"\r": "&#13;"})


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


def _with_last(segments: Iterable[Sequence[Prediction]]) -> Iterator[tuple[Sequence[Prediction], bool]]:
    """Yields the segments, and whether each is the last one."""
    before: Sequence[Prediction] | None = None
    for part in segments:
        if before is not None:
            yield before, False
        before = part
    if before:
        yield before, True
