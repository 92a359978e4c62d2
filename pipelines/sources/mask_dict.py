"""Sentences with masks in a `mask_dict.json`: MeViS (v1 and v2), ReVOS, Ref-SAV (spec data.md §1)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.errors import BadItem, Dropped, shown
from pipelines.files import Folder
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import (
    Listed,
    MetaExpression,
    check_images,
    checked,
    read_json,
    read_videos,
    typed,
)
from pipelines.sources.names import DatasetName
from pipelines.sources.reading import checked_split, image_frames, whole_number
from sgmg.masks import rle_area, rle_union


@dataclass(frozen=True, slots=True)
class MaskDictLayout:
    """Places of a dataset's files, in which `{split}` stands for the split: the first one that exists is read.

    Args:
        splits: whether the masks of each split are published.
        meta: JSON of the sentences.
        masks: JSON of the masks, by the id of each object; it has one name.
        images: folder of the videos.
        kinds: what the benchmark calls the `type_id` of a sentence.
    """

    splits: Mapping[str, bool]
    meta: tuple[str, ...]
    masks: str
    images: tuple[str, ...]
    kinds: Mapping[int, str] = field(default_factory=dict)


_MEVIS_SPLITS = {"train": True, "valid_u": True, "valid": False}
_MEVIS_FILES = "{split}/mask_dict.json", ("{split}/JPEGImages",)

LAYOUTS: dict[DatasetName, MaskDictLayout] = {
    "mevis": MaskDictLayout(_MEVIS_SPLITS, ("{split}/meta_expressions.json",), *_MEVIS_FILES),
    # The files of the second version are called so where they are downloaded; its README still says meta_expressions.
    "mevis-v2": MaskDictLayout(
        {**_MEVIS_SPLITS, "test": False},
        (
            "{split}/meta_expressions_v2.json",
            "{split}/meta_expressions_v2_release.json",
            "{split}/meta_expressions_release.json",
            "{split}/meta_expressions.json",
        ),
        *_MEVIS_FILES,
    ),
    "revos": MaskDictLayout(
        {"train": True, "valid": True},
        ("meta_expressions_{split}_.json", "meta_expressions_{split}.json"),
        "mask_dict.json",
        ("JPEGImages", ""),
        {0: "referring", 1: "reasoning", 2: "other"},
    ),
    "ref-sav": MaskDictLayout(
        {"valid": True},
        ("meta_expressions_{split}.json",),
        "mask_dict.json",
        ("JPEGImages", "videos"),
        {0: "long", 1: "short"},
    ),
}
"""The datasets of this kind."""


@dataclass(frozen=True, slots=True)
class MaskDict:
    """Reads the sentences and frames of a split, and where they are published the masks.

    The id of an object is its `anno_id`, the key of its masks. The target of a sentence is the union of its objects; a
    sentence with an empty list of them has no target.

    Raises:
        LayoutError: the dataset has no such split.
    """

    root: Folder
    split: str
    dataset: DatasetName = "mevis"

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, tuple(self.layout.splits))

    @property
    def layout(self) -> MaskDictLayout:
        """Places of the dataset's files."""
        return LAYOUTS[self.dataset]

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds its entries of the annotation files, masks included.

        Raises:
            LayoutError: an annotation file is missing or unreadable, or none of its videos has images.
        """
        meta, images = self._first(self.layout.meta), self._first(self.layout.images)
        videos = read_videos(self.root, meta)
        masks = read_json(self.root, self._masks) if self.layout.splits[self.split] else {}
        items = [
            Item(
                name,
                {
                    "listed": videos[name],
                    "masks": {id: masks.get(id) for id in _anno_ids(videos[name])},
                    "meta": meta,
                    "images": f"{images}/{name}".lstrip("/"),
                },
            )
            for name in sorted(videos)
        ]
        return check_images(self.root, images, items)

    def read(self, item: Item) -> Reading:
        """Reads one video with every listed frame; with a truth also the objects that its sentences refer to.

        Raises:
            BadItem: a file or a key is missing, damaged, or contradicts another.
        """
        path = self.root.path(item.key["meta"])
        listed = checked(item.video, item.key["listed"], path)
        folder = item.key["images"]
        names = [f"{folder}/{name}.jpg" for name in listed.frame_names]
        frames, (width, height) = image_frames(self.root, names, item.video)
        tracks, dropped = (), ()
        expressions = tuple(
            Expression(sentence.id, sentence.text, external_id=sentence.id, kind=self._kind(item.video, sentence, path))
            for sentence in listed.sentences
        )
        if self.layout.splits[self.split]:
            tracks, missing = self._tracks(item, listed, (height, width))
            expressions, dropped = _with_objects(item.video, listed, expressions, tracks, path)
            dropped = (*missing, *dropped)
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

    def _first(self, places: Sequence[str]) -> str:
        """Returns the first of some places that exists; the last one if none does, which is then reported."""
        named = [place.format(split=self.split) for place in places]
        return next((place for place in named if self.root.has(place)), named[-1])

    @property
    def _masks(self) -> str:
        return self.layout.masks.format(split=self.split)

    def _kind(self, video: str, sentence: MetaExpression, path: str) -> str:
        kinds, type_id = self.layout.kinds, sentence.entry.get("type_id")
        if not kinds or type_id is None:
            return ""
        number = whole_number(str(type_id)) if type(type_id) in (int, str) else None
        if number is None or number not in kinds:
            raise BadItem(
                video,
                "list",
                f"{path}, expression {sentence.id!r}: 'type_id' should be one of {', '.join(map(str, kinds))}, but is "
                f"{shown(type_id)}. Its sentences are scored by it.",
            )
        return kinds[number]

    def _tracks(
        self, item: Item, listed: Listed, size: tuple[int, int]
    ) -> tuple[tuple[ObjectTrack, ...], tuple[Dropped, ...]]:
        """Returns the objects, those without a pixel too, and the objects that are dropped, as there are no masks."""
        tracks, dropped = [], []
        for id, masks in item.key["masks"].items():
            where = f"{self.root.path(self._masks)}, object {id!r}"
            if masks is None:
                dropped.append(Dropped(item.video, "object not in mask_dict.json, or twice", f"object {id}"))
                continue
            names = listed.frame_names
            if not isinstance(masks, list) or len(masks) != len(names):
                found = f"{len(masks)} masks" if isinstance(masks, list) else f"a {type(masks).__name__}"
                raise BadItem(item.video, "list", f"{where} has {found} for {len(names)} frames.")
            of_frames = zip(names, masks, strict=True)
            rle = tuple(_rle(item.video, mask, size, f"{where}, frame {name}") for name, mask in of_frames)
            tracks.append(ObjectTrack(int(id), rle))
        return tuple(tracks), tuple(dropped)


def _with_objects(
    video: str, listed: Listed, expressions: Iterable[Expression], tracks: Iterable[ObjectTrack], path: str
) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the sentences with their objects, or without any if they have no target.

    The truth of those with a missing object is withheld, as their target would be too small. They are predicted and
    submitted all the same.
    """
    known = {track.id for track in tracks}
    found, without = [], []
    for sentence, expression in zip(listed.sentences, expressions, strict=True):
        where = f"{path}, expression {sentence.id!r}"
        ids = typed(video, sentence.entry, "anno_id", list, where)
        if not all(_is_id(id) for id in ids):
            raise BadItem(video, "list", f"{where}: 'anno_id' should be whole numbers from 0, but is {shown(ids)}.")
        object_ids = tuple(dict.fromkeys(int(id) for id in ids))
        if known.issuperset(object_ids):
            found.append(replace(expression, object_ids=object_ids))
        else:
            what = f"expression {sentence.id}, of objects {ids}: {sentence.text}"
            without.append(Dropped(video, "truth of an expression, as one of its objects has no masks", what))
            found.append(expression)
    return tuple(found), tuple(without)


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
