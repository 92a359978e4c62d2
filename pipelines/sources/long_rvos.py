"""Long-RVOS: sentences of three kinds about objects of videos of a minute, with a folder of PNGs for each object."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, LayoutError, shown
from pipelines.files import Folder, is_safe_name
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import check_images, checked, read_videos
from pipelines.sources.object_maps import read_masks
from pipelines.sources.reading import checked_split, image_frames

SPLITS = ("train", "valid", "test")
KINDS = ("static", "dynamic", "hybrid")
"""What a sentence is about: appearance, motion, or both."""


@dataclass(frozen=True, slots=True)
class LongRVOS:
    """Reads `<split>/{JPEGImages,Annotations,meta_expressions.json}`; all splits are published with their masks.

    The masks of object o are `Annotations/<video>/<o>/<frame>.png`; a frame without one does not show it.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    dataset: str = "long-rvos"

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, SPLITS)

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds its entry of the annotation file.

        Raises:
            LayoutError: the annotation file is missing or unreadable, or none of its videos has images.
        """
        videos = read_videos(self.root, self._meta)
        if not self.root.has(f"{self.split}/Annotations"):
            raise LayoutError(
                f"{self.root.path(f'{self.split}/Annotations')} does not exist. Unpack Annotations.tar.gz."
            )
        return check_images(
            self.root, f"{self.split}/JPEGImages", [Item(name, videos[name]) for name in sorted(videos)]
        )

    def read(self, item: Item) -> Reading:
        """Reads one video with every listed frame, and the objects that its sentences refer to.

        Raises:
            BadItem: a file or a key is missing, damaged, or contradicts another.
        """
        path = self.root.path(self._meta)
        listed = checked(item.video, item.key, path)
        folder = f"{self.split}/JPEGImages/{item.video}"
        frames, size = image_frames(self.root, [f"{folder}/{name}.jpg" for name in listed.frame_names], item.video)
        expressions, objects = [], dict[str, int]()
        for sentence in listed.sentences:
            where = f"{path}, expression {sentence.id!r}"
            name = _object(item.video, sentence.entry, where)
            number = objects.setdefault(name, len(objects) + 1)
            kind = _kind(sentence.entry)
            expressions.append(Expression(sentence.id, sentence.text, (number,), external_id=sentence.id, kind=kind))
        tracks, masks = [], []
        there = self.root.names(f"{self.split}/Annotations/{item.video}")
        for name, number in objects.items():
            if name not in there:
                path = self.root.path(f"{self.split}/Annotations/{item.video}/{name}")
                raise BadItem(item.video, "list", f"{path} is missing: the masks of an object. Unpack it again.")
            masks_folder = f"{self.split}/Annotations/{item.video}/{name}"
            rles, data = read_masks(item.video, self.root, masks_folder, listed.frame_names, size)
            tracks.append(ObjectTrack(number, rles))
            masks += data
        record = build_record(
            self,
            item.video,
            size,
            frame_names=listed.frame_names,
            frames=frames,
            objects=tuple(tracks),
            expressions=tuple(expressions),
            path=folder,
            made_from=[json.dumps(item.key), *frames, *masks],
        )
        return Reading(record, listed.dropped)

    @property
    def _meta(self) -> str:
        return f"{self.split}/meta_expressions.json"


def _object(video: str, entry: Any, where: str) -> str:
    """Returns the name of the folder of a sentence's object."""
    name = entry.get("obj_id")
    if type(name) not in (int, str) or not is_safe_name(str(name)):
        raise BadItem(video, "list", f"{where}: 'obj_id' should name a folder of masks, but is {shown(name)}.")
    return str(name)


def _kind(entry: Any) -> str:
    """Returns the kind of a sentence; empty for a word that is not known: only the figures of kinds need it."""
    kind = str(entry.get("type", "")).removeprefix("text_")
    return kind if kind in KINDS else ""
