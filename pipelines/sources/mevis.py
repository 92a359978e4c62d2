"""MeViS: sentences about the motion of one or several objects, with masks in `mask_dict.json` (spec data.md §1)."""

import json
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, Dropped, shown
from pipelines.files import Folder
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import Listed, check_images, checked, read_json, read_videos, typed
from pipelines.sources.reading import checked_split, image_frames, whole_number
from sgmg.masks import rle_area, rle_union

SPLITS = {"train": True, "valid_u": True, "valid": False}
"""Maps each split to whether its masks are published."""


@dataclass(frozen=True, slots=True)
class MeViS:
    """Reads `<split>/{JPEGImages,meta_expressions.json}`; for train and valid_u also `mask_dict.json`.

    The id of an object is its `anno_id`, the key of its masks in `mask_dict.json`. The target of a sentence is the
    union of its objects.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    dataset: str = "mevis"

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, tuple(SPLITS))

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds its entries of the annotation files, masks included.

        Raises:
            LayoutError: an annotation file is missing or unreadable, or none of its videos has images.
        """
        videos = read_videos(self.root, f"{self.split}/meta_expressions.json")
        masks = read_json(self.root, f"{self.split}/mask_dict.json") if SPLITS[self.split] else {}
        items = [
            Item(name, {"listed": videos[name], "masks": {id: masks.get(id) for id in _anno_ids(videos[name])}})
            for name in sorted(videos)
        ]
        return check_images(self.root, f"{self.split}/JPEGImages", items)

    def read(self, item: Item) -> Reading:
        """Reads one video with every listed frame; in train and valid_u also the objects that its sentences refer to.

        Raises:
            BadItem: a file or a key is missing, damaged, or contradicts another.
        """
        path = self.root.path(f"{self.split}/meta_expressions.json")
        listed = checked(item.video, item.key["listed"], path)
        folder = f"{self.split}/JPEGImages/{item.video}"
        names = [f"{folder}/{name}.jpg" for name in listed.frame_names]
        frames, (width, height) = image_frames(self.root, names, item.video)
        if SPLITS[self.split]:
            tracks, missing = self._tracks(item, listed, (height, width))
            expressions, dropped = _with_objects(item.video, listed, tracks, path)
            dropped = (*missing, *dropped)
        else:
            tracks, dropped = (), ()
            expressions = tuple(
                Expression(sentence.id, sentence.text, external_id=sentence.id) for sentence in listed.sentences
            )
        record = build_record(
            self,
            item.video,
            (width, height),
            frame_names=listed.frame_names,
            frames=frames,
            objects=tracks,
            expressions=expressions,
            path=folder,
            made_from=[json.dumps(item.key), *frames],
        )
        return Reading(record, (*listed.dropped, *dropped))

    def _tracks(
        self, item: Item, listed: Listed, size: tuple[int, int]
    ) -> tuple[tuple[ObjectTrack, ...], tuple[Dropped, ...]]:
        """Returns the objects that have a pixel in some frame, and the objects that are dropped."""
        tracks, dropped = [], []
        for id, masks in item.key["masks"].items():
            where = f"{self.root.path(f'{self.split}/mask_dict.json')}, object {id!r}"
            if masks is None:
                dropped.append(Dropped(item.video, "object not in mask_dict.json, or twice", f"object {id}"))
                continue
            names = listed.frame_names
            if not isinstance(masks, list) or len(masks) != len(names):
                found = f"{len(masks)} masks" if isinstance(masks, list) else f"a {type(masks).__name__}"
                raise BadItem(item.video, "list", f"{where} has {found} for {len(names)} frames.")
            of_frames = zip(names, masks, strict=True)
            rle = tuple(_rle(item.video, mask, size, f"{where}, frame {name}") for name, mask in of_frames)
            if any(rle_area(one, size) for one in rle):
                tracks.append(ObjectTrack(int(id), rle))
            else:
                dropped.append(Dropped(item.video, "object without pixels", f"object {id}"))
        return tuple(tracks), tuple(dropped)


def _with_objects(
    video: str, listed: Listed, tracks: tuple[ObjectTrack, ...], path: str
) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the sentences with their objects. Drops those with a missing object: their target would be too small."""
    known = {track.id for track in tracks}
    expressions, dropped = [], []
    for sentence in listed.sentences:
        where = f"{path}, expression {sentence.id!r}"
        ids = typed(video, sentence.entry, "anno_id", list, where)
        if not all(_is_id(id) for id in ids):
            raise BadItem(video, "list", f"{where}: 'anno_id' should be whole numbers from 0, but is {shown(ids)}.")
        object_ids = tuple(dict.fromkeys(int(id) for id in ids))
        if object_ids and known.issuperset(object_ids):
            expressions.append(Expression(sentence.id, sentence.text, object_ids, external_id=sentence.id))
        else:
            reason = "expression of an object that is not there" if ids else "expression of no object"
            dropped.append(Dropped(video, reason, f"expression {sentence.id}, of objects {ids}: {sentence.text}"))
    return tuple(expressions), tuple(dropped)


def _rle(video: str, mask: Any, size: tuple[int, int], where: str) -> str:
    """Checks and returns one mask of the file. Every frame is annotated: null means that the object is not visible."""
    if mask is None:
        return rle_union([], size)
    counts = typed(video, mask, "counts", str, where)
    found = typed(video, mask, "size", list, where)
    if found != list(size):
        raise BadItem(
            video,
            "decode",
            f"{where}: the mask is of height, width {shown(found)}, but its frame {list(size)}. Get it again.",
        )
    try:
        rle_area(counts, size)
    except ValueError as error:
        raise BadItem(video, "decode", f"{where}: {error}") from error
    return counts


def _anno_ids(entry: Any) -> list[str]:
    """Returns the object ids that the sentences of a video refer to, sorted, as `mask_dict.json` spells them.

    Skips malformed values: `read` reports them, so that only this video is quarantined.
    """
    expressions = entry.get("expressions") if isinstance(entry, dict) else None
    entries = expressions.values() if isinstance(expressions, dict) else ()
    lists = [one["anno_id"] for one in entries if isinstance(one, dict) and isinstance(one.get("anno_id"), list)]
    return [str(id) for id in sorted({int(id) for ids in lists for id in ids if _is_id(id)})]


def _is_id(id: Any) -> bool:
    return type(id) in (int, str) and whole_number(str(id)) is not None
