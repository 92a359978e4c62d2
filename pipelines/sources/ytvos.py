"""Ref-YouTube-VOS: every fifth frame of a video, PNGs of object ids, and sentences in a JSON file (spec data.md §1)."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, Dropped, shown
from pipelines.files import Folder
from pipelines.records import Expression
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import Listed, check_images, checked, read_videos, typed
from pipelines.sources.object_maps import read_annotation
from pipelines.sources.reading import checked_split, image_frames, whole_number

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class RefYouTubeVOS:
    """Reads `meta_expressions/` and `<split>/JPEGImages`; for train also `Annotations` and `meta.json`.

    The official file of valid also lists the videos of test; they are removed. If the file of test is missing (it is no
    longer distributed), valid is every listed video that has a folder of images.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    dataset: str = "ref-youtube-vos"

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, SPLITS)

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds its entries of the annotation files.

        Raises:
            LayoutError: an annotation file is missing or unreadable, or none of its videos has images.
        """
        videos = read_videos(self.root, _expressions(self.split))
        if self.split == "valid":
            videos = self._without_test(videos)
        objects = read_videos(self.root, "train/meta.json") if self.split == "train" else {}
        items = [Item(name, {"listed": videos[name], "meta": objects.get(name)}) for name in sorted(videos)]
        return check_images(self.root, f"{self.split}/JPEGImages", items)

    def read(self, item: Item) -> Reading:
        """Reads one video with every listed frame; in train also its objects, and the object of every sentence.

        Raises:
            BadItem: a file or a key is missing, damaged, or contradicts another.
        """
        listed = checked(item.video, item.key["listed"], self._path)
        folder = f"{self.split}/JPEGImages/{item.video}"
        names = [f"{folder}/{name}.jpg" for name in listed.frame_names]
        frames, (width, height) = image_frames(self.root, names, item.video)
        tracks, expressions, dropped, masks = (), _without_objects(listed), (), ()
        if self.split == "train":
            categories = self._categories(item)
            pngs = [f"train/Annotations/{item.video}/{name}.png" for name in listed.frame_names]
            found = read_annotation(item.video, self.root, pngs, (width, height), categories)
            expressions, dropped = self._with_objects(item.video, listed, {track.id for track in found.tracks})
            absent = [Dropped(item.video, "object without pixels", f"object {id}") for id in found.absent]
            unknown = [Dropped(item.video, "object not in meta.json", f"object {id}") for id in found.unknown]
            tracks, dropped, masks = found.tracks, (*absent, *unknown, *dropped), found.data
        record = build_record(
            self,
            item.video,
            (width, height),
            frame_names=listed.frame_names,
            frames=frames,
            objects=tracks,
            expressions=expressions,
            path=folder,
            made_from=[json.dumps(item.key), *frames, *masks],
        )
        return Reading(record, (*listed.dropped, *dropped))

    def _without_test(self, videos: dict[str, Any]) -> dict[str, Any]:
        if self.root.has(_expressions("test")):
            test = read_videos(self.root, _expressions("test"))
            return {name: videos[name] for name in videos if name not in test}
        with_images = set(self.root.names("valid/JPEGImages"))
        return {name: videos[name] for name in videos if name in with_images}

    @property
    def _path(self) -> str:
        return self.root.path(_expressions(self.split))

    def _categories(self, item: Item) -> dict[int, str]:
        """Returns the category of each object id, from train/meta.json."""
        path = self.root.path("train/meta.json")
        objects = typed(item.video, item.key["meta"], "objects", dict, path)
        return {
            _number(item.video, id, path): typed(item.video, entry, "category", str, f"{path}, object {id!r}")
            for id, entry in objects.items()
        }

    def _with_objects(
        self, video: str, listed: Listed, known: set[int]
    ) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
        """Returns the sentences with their objects. Drops those whose object has no pixels or is not in meta.json."""
        expressions, dropped = [], []
        for sentence in listed.sentences:
            where = f"{self._path}, expression {sentence.id!r}"
            object_id = _number(video, typed(video, sentence.entry, "obj_id", str, where), where)
            if object_id in known:
                expressions.append(Expression(sentence.id, sentence.text, (object_id,), external_id=sentence.id))
            else:
                what = f"expression {sentence.id}, of object {object_id}: {sentence.text}"
                dropped.append(Dropped(video, "expression of an object that is not there", what))
        return tuple(expressions), tuple(dropped)


def _expressions(split: str) -> str:
    return f"meta_expressions/{split}/meta_expressions.json"


def _without_objects(listed: Listed) -> tuple[Expression, ...]:
    return tuple(Expression(sentence.id, sentence.text, external_id=sentence.id) for sentence in listed.sentences)


def _number(video: str, id: str, where: str) -> int:
    number = whole_number(id)
    if not number:
        raise BadItem(
            video, "list", f"{where}: the object id {shown(id)} is no number from 1. PNG pixels hold such numbers."
        )
    return number
