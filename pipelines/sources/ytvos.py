"""Ref-YouTube-VOS: every fifth frame of a video, PNGs of object ids, and sentences in a JSON file (spec data.md §1)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, Dropped, shown
from pipelines.files import Folder
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import Listed, check_images, checked, read_videos, typed
from pipelines.sources.object_maps import read_annotation, read_masks, shared_tracks
from pipelines.sources.reading import checked_split, image_frames, whole_number

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class _Truth:
    """The sentences with their objects, what was left out, and the bytes that it was made from."""

    expressions: tuple[Expression, ...]
    tracks: tuple[ObjectTrack, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    data: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RefYouTubeVOS:
    """Reads `meta_expressions/` and `<split>/JPEGImages`; for train also `Annotations` and `meta.json`.

    The official file of valid also lists the videos of test; they are removed. If the file of test is missing (it is no
    longer distributed), valid is every listed video that has a folder of images.

    Valid and test have a truth too where `<split>/Annotations/<video>` holds PNGs of object ids, as in train, and the
    sentences have an `obj_id`; or holds a folder of PNGs for each expression, as in the valid.zip that the owners gave
    out in 2026. Its sentences with `obj_id` are in `valid/meta_expressions_challenge.json`.

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
        meta = self._meta()
        videos = read_videos(self.root, meta)
        if self.split == "valid":
            videos = self._without_test(videos)
        about, train = f"{self.split}/meta.json", self.split == "train"
        objects = read_videos(self.root, about) if train or self.root.has(about) else {}
        masks = set(videos if train else self.root.names(f"{self.split}/Annotations"))
        items = [
            Item(name, {"listed": videos[name], "objects": objects.get(name), "meta": meta, "masks": name in masks})
            for name in sorted(videos)
        ]
        return check_images(self.root, f"{self.split}/JPEGImages", items)

    def read(self, item: Item) -> Reading:
        """Reads one video with every listed frame; with a truth also its objects, and the object of every sentence.

        An object that the masks never show is absent: its masks are empty.

        Raises:
            BadItem: a file or a key is missing, damaged, or contradicts another.
        """
        listed = checked(item.video, item.key["listed"], self.root.path(item.key["meta"]))
        folder = f"{self.split}/JPEGImages/{item.video}"
        names = [f"{folder}/{name}.jpg" for name in listed.frame_names]
        frames, size = image_frames(self.root, names, item.video)
        truth = self._truth(item, listed, size)
        record = build_record(
            self,
            item.video,
            size,
            frame_names=listed.frame_names,
            frames=frames,
            objects=truth.tracks,
            expressions=truth.expressions,
            path=folder,
            made_from=[json.dumps(item.key), *frames, *truth.data],
        )
        return Reading(record, (*listed.dropped, *truth.dropped))

    def _without_test(self, videos: dict[str, Any]) -> dict[str, Any]:
        if self.root.has(_expressions("test")):
            test = read_videos(self.root, _expressions("test"))
            return {name: videos[name] for name in videos if name not in test}
        with_images = set(self.root.names("valid/JPEGImages"))
        return {name: videos[name] for name in videos if name in with_images}

    def _meta(self) -> str:
        """Returns the file of sentences; of valid that with their objects where there is one."""
        own = [f"valid/{name}.json" for name in ("meta_expressions_challenge", "meta_expressions")]
        first, last = own if self.split == "valid" else ("", "")
        places = (first, _expressions(self.split), last)
        return next((place for place in places if place and self.root.has(place)), _expressions(self.split))

    def _truth(self, item: Item, listed: Listed, size: tuple[int, int]) -> _Truth:
        if item.key["masks"]:
            if self.split == "train":
                return self._of_maps(item, listed, size)
            there = self.root.names(f"{self.split}/Annotations/{item.video}")
            if not any(name.endswith(".png") for name in there):
                return self._of_folders(item, listed, size, there)
            if any("obj_id" in sentence.entry for sentence in listed.sentences):
                return self._of_maps(item, listed, size)
        return _Truth(tuple(Expression(one.id, one.text, external_id=one.id) for one in listed.sentences))

    def _of_maps(self, item: Item, listed: Listed, size: tuple[int, int]) -> _Truth:
        """Returns the truth of PNGs of object ids."""
        expressions = []
        for sentence in listed.sentences:
            where = f"{self.root.path(item.key['meta'])}, expression {sentence.id!r}"
            number = _number(item.video, typed(item.video, sentence.entry, "obj_id", str, where), where)
            expressions.append(Expression(sentence.id, sentence.text, (number,), external_id=sentence.id))
        named = sorted({id for one in expressions for id in one.targets})
        categories = dict.fromkeys(named, "") | self._categories(item)
        pngs = [f"{self.split}/Annotations/{item.video}/{name}.png" for name in listed.frame_names]
        found = read_annotation(item.video, self.root, pngs, size, categories)
        unknown = tuple(Dropped(item.video, "object without sentence", f"object {id}") for id in found.unknown)
        return _Truth(tuple(expressions), found.tracks, unknown, found.data)

    def _of_folders(self, item: Item, listed: Listed, size: tuple[int, int], there: Sequence[str]) -> _Truth:
        """Returns the truth of a folder of masks for each expression; those of one object are the same."""
        folder = f"{self.split}/Annotations/{item.video}"
        masks: list[tuple[str, tuple[str, ...]]] = []
        data: list[bytes] = []
        for sentence in listed.sentences:
            if sentence.id not in there:
                path = self.root.path(f"{folder}/{sentence.id}")
                raise BadItem(item.video, "list", f"{path} is missing: the masks of its expression. Unpack it again.")
            rles, pngs = read_masks(item.video, self.root, f"{folder}/{sentence.id}", listed.frame_names, size)
            masks.append((str(sentence.entry.get("obj_id", "")), rles))
            data += pngs
        numbers, tracks = shared_tracks(masks)
        expressions = tuple(
            Expression(sentence.id, sentence.text, (number,), external_id=sentence.id)
            for sentence, number in zip(listed.sentences, numbers, strict=True)
        )
        return _Truth(expressions, tracks, data=tuple(data))

    def _categories(self, item: Item) -> dict[int, str]:
        """Returns the category of each object id, from meta.json, which only train must have."""
        if item.key["objects"] is None and self.split != "train":
            return {}
        path = self.root.path(f"{self.split}/meta.json")
        objects = typed(item.video, item.key["objects"], "objects", dict, path)
        return {
            _number(item.video, id, path): typed(item.video, entry, "category", str, f"{path}, object {id!r}")
            for id, entry in objects.items()
        }


def _expressions(split: str) -> str:
    return f"meta_expressions/{split}/meta_expressions.json"


def _number(video: str, id: str, where: str) -> int:
    number = whole_number(id)
    if not number:
        raise BadItem(
            video, "list", f"{where}: the object id {shown(id)} is no number from 1. PNG pixels hold such numbers."
        )
    return number
