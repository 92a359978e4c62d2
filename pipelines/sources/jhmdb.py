"""JHMDB-Sentences: clips of one person as PNG frames, one sentence per clip, puppet masks. For evaluation only."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

from pipelines.errors import BadItem, Dropped, LayoutError, shown
from pipelines.files import Folder, safe_name
from pipelines.records import Expression, ObjectTrack
from pipelines.safety.limits import MAX_FRAMES
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.frame_ids import frame_id_template
from pipelines.sources.puppet_mask import puppet_masks
from pipelines.sources.reading import (
    annotation_list,
    annotation_rows,
    checked_split,
    checked_video,
    image_frames,
    item_bytes,
)
from sgmg.masks import masks_to_rles

_log = logging.getLogger(__name__)

_METADATA = "jhmdb_sentences_samples_metadata.json"
_TEXTS = "jhmdb_annotation.txt"
_OBJECT = 1  # id of the only person of a clip; the files give none


@dataclass(frozen=True, slots=True)
class _Video:
    """The part of the annotation files that a record needs. Plain values, stored in `Item.key`."""

    text: str
    frames: str = ""  # folder
    masks: str = ""  # file
    total: int | None = None  # number of frames to use; None for the number of masks
    asked: tuple[int, ...] | None = None  # frames to evaluate, from 1; None for all with a mask
    repeated: tuple[str, ...] = ()  # rows dropped because another row has the same frame or another text
    problem: str = ""  # why no record can be made; empty if one can


@dataclass(frozen=True)
class JhmdbSentences:
    """JHMDB-Sentences (spec data.md §1): one record per video, with its first T frames, one object, one expression.

    T is the total in the metadata, else the number of masks; further PNGs are dropped and counted. Published scores use
    three frames per video, listed in `jhmdb_sentences_samples_metadata.json`. If that file is missing, every frame with
    a mask is evaluated, a warning says so, and scores are not comparable.

    Results are named by frame: `Expression.external_id` is a template `v_<video>_f_{frame}`, and
    `frame_ids.frame_id(external_id, frame_name)` is the id at one of the frames in `Expression.frames`.

    Args:
        root: folder with `Rename_Images/`, `puppet_mask/` and the metadata or `jhmdb_annotation.txt`.
        split: test, the only one.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str = "test"
    dataset: str = field(default="jhmdb-sentences", init=False)

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, ["test"])

    def items(self) -> list[Item]:
        """Returns the videos that have a sentence, sorted by name.

        Raises:
            LayoutError: an annotation file or `Rename_Images/` is missing or damaged.
        """
        videos: dict[str, _Video] = {}
        for name, video in self._from_metadata() if self.root.has(_METADATA) else self._from_texts():
            videos[name] = _joined(name, videos[name], video) if name in videos else video
        return [Item(name, asdict(videos[name])) for name in sorted(videos)]

    def read(self, item: Item) -> Reading:
        """Reads one video with its puppet masks.

        Raises:
            BadItem: a frame or the .mat file is missing or damaged, their sizes differ, or no frame can be evaluated.
        """
        checked_video(item.video)
        video = _Video(**item.key)
        if video.problem:
            raise BadItem(item.video, "list", video.problem)
        mat = item_bytes(self.root, video.masks, item.video)
        masks = puppet_masks(item.video, self.root.path(video.masks), mat)
        total = len(masks) if video.total is None else video.total
        names = [f"{number:05d}" for number in range(1, total + 1)]
        folder = self.root.folder(video.frames)
        frames, (width, height) = image_frames(folder, [f"{name}.png" for name in names], item.video)
        if masks.shape[1:] != (height, width):
            raise BadItem(
                item.video,
                "read",
                f"{self.root.path(video.masks)} has masks of height, width {masks.shape[1:]}, the frames "
                f"{(height, width)}. Unpack frames and masks of one resolution.",
            )
        beyond = sorted(set(folder.names(suffix=".png")) - {f"{name}.png" for name in names})
        expressions, dropped = self._expressions(item.video, video, masks[:total])
        record = build_record(
            self,
            item.video,
            (width, height),
            frame_names=tuple(names),
            frames=frames,
            objects=(ObjectTrack(_OBJECT, (*masks_to_rles(masks[:total]), *[None] * (total - len(masks)))),),
            expressions=expressions,
            path=video.frames,
            made_from=[json.dumps(item.key, sort_keys=True), mat, *frames],
        )
        unused = (Dropped(item.video, "frame beyond the last that counts", png) for png in beyond)
        return Reading(record, (*dropped, *unused))

    def _from_metadata(self) -> Iterator[tuple[str, _Video]]:
        """Yields the name and content of every row of the metadata; each row names one frame to evaluate."""
        for number, row in enumerate(annotation_list(self.root, _METADATA)):
            try:
                name, frame, masks, total, text = _checked_row(row)
                video = _Video(text, total=total)
                asked = int(PurePosixPath(frame).stem)
            except (TypeError, ValueError) as error:
                raise LayoutError(
                    f"{self.root.path(_METADATA)}, row {number} (from 0): {shown(row)} is not [video, path of a "
                    f"numbered frame, path of masks, number of frames, text]. Download it again."
                ) from error
            try:
                frames = str(PurePosixPath(_inside(frame)).parent)
                yield name, replace(video, frames=frames, masks=_inside(masks), asked=(asked,))
            except ValueError as error:
                yield name, replace(video, problem=f"{self.root.path(_METADATA)}, row {number} (from 0): {error}")

    def _from_texts(self) -> Iterator[tuple[str, _Video]]:
        """Yields the name and content of every row of the plain list of texts."""
        rows = annotation_rows(self.root, _TEXTS, ("video_id", "query"))
        classes = self.root.names("Rename_Images")
        if not classes:
            raise LayoutError(
                f"{self.root.path('Rename_Images')} does not exist or is empty. Point --raw at the folder that holds "
                f"Rename_Images/ and puppet_mask/."
            )
        class_of = {video: name for name in classes for video in self.root.names(f"Rename_Images/{name}")}
        _log.warning(
            "%s is missing: every frame with a mask is asked, so scores do not compare with published ones.",
            self.root.path(_METADATA),
        )
        for name, text in rows:
            if name in class_of:
                place = f"{class_of[name]}/{name}"
                yield name, _Video(text, f"Rename_Images/{place}", f"puppet_mask/{place}/puppet_mask.mat")
            else:
                missing = f"{self.root.path('Rename_Images')}/<class>/{name}"
                yield name, _Video(text, problem=f"{missing} does not exist. Unpack Rename_Images again.")

    def _expressions(
        self, name: str, video: _Video, masks: np.ndarray
    ) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
        """Returns the sentence with the frames to evaluate, and what is dropped with its reason."""
        dropped = [Dropped(name, "duplicate expression id", what) for what in video.repeated]
        if not video.text.strip():
            return (), (*dropped, Dropped(name, "empty expression", "0"))
        with_pixels = [number for number, mask in enumerate(masks, start=1) if mask.any()]
        if not with_pixels:
            raise BadItem(
                name, "read", f"{self.root.path(video.masks)}: the object has no pixel in any frame. Unpack it again."
            )
        asked = with_pixels if video.asked is None else sorted(set(video.asked))
        frames = tuple(number - 1 for number in asked if 1 <= number <= len(masks))
        without = [number for number in asked if number - 1 not in frames]
        dropped += [Dropped(name, "asked frame without mask", f"frame {number}: {video.text}") for number in without]
        if not frames:
            return (), (*dropped, Dropped(name, "no asked frame has a mask", video.text))
        external = frame_id_template(f"v_{name}_f_")
        return (Expression("0", video.text, (_OBJECT,), external, frames=frames),), tuple(dropped)


def _checked_row(row: object) -> tuple[str, str, str, int, str]:
    """Returns the values of a row of the metadata after checking their types.

    Raises:
        TypeError: a value is of another type.
        ValueError: there are more or fewer values, or the number of frames is out of range.
    """
    if not isinstance(row, list):
        raise TypeError("no list")
    name, frame, masks, total, text = row
    if not all(isinstance(value, str) for value in (name, frame, masks, text)) or type(total) is not int:
        raise TypeError("a value of another type")
    if not 0 <= total <= MAX_FRAMES:
        raise ValueError(f"{total} frames")
    return name, frame, masks, total, text


def _inside(path: str) -> str:
    """Converts a path of the metadata, which is relative to the parent folder, to one relative to the dataset's folder.

    >>> _inside("./jhmdb_sentences/Rename_Images/run/a/00001.png")
    'Rename_Images/run/a/00001.png'
    """
    _, *inside = PurePosixPath(safe_name(path)).parts
    if not inside:
        raise ValueError(f"The path {path!r} has no folder above. Write it as ./jhmdb_sentences/<path>.")
    return "/".join(inside)


def _joined(name: str, first: _Video, other: _Video) -> _Video:
    """Merges two rows of one video: the frames of both, and the text of the first."""
    if first.problem or other.problem:
        return replace(first, problem=first.problem or other.problem)
    if (other.frames, other.masks, other.total) != (first.frames, first.masks, first.total):
        return replace(first, problem=f"{_METADATA}: rows of {name} differ in folder, masks or total. Make them agree.")
    if other.text != first.text or other.asked is None or set(other.asked) <= set(first.asked or ()):
        frame = ", ".join(map(str, other.asked or ["any"]))
        return replace(first, repeated=(*first.repeated, f"{other.text}, frame {frame}"))
    return replace(first, asked=(*(first.asked or ()), *other.asked))
