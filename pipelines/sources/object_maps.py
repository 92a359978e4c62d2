"""Conversion of PNGs whose pixels hold object ids, one per frame, to tracks."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.images import ColouredMask, ids_of, object_map, opened_image, white_of
from pipelines.records import ObjectTrack
from pipelines.sources.label_colours import ColourTable, ids_of_colours
from pipelines.sources.reading import item_bytes
from sgmg.masks import mask_to_rle, rle_union

_LARGE = 2**20
"""Bytes of a PNG up to which it is kept for the fingerprint of its video; real ones have kilobytes."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """The requested objects of one video, and the other content of its PNGs.

    Args:
        tracks: in the order of the requested ids; of an object without a pixel, empty masks.
        absent: requested ids that have no pixel in any frame.
        unknown: ids in the PNGs that were neither requested nor named by sentences of other splits.
        data: bytes of the PNGs, one per frame, or the hash of one of more than `_LARGE`; empty for a frame that is not
            annotated.
    """

    tracks: tuple[ObjectTrack, ...]
    absent: tuple[int, ...]
    unknown: tuple[int, ...]
    data: tuple[bytes, ...]

    @property
    def doubtful(self) -> frozenset[int]:
        """Absent ids, where the PNGs also hold ids that were not requested: one may be meant by the other."""
        return frozenset(self.absent if self.unknown else ())


def read_annotation(
    video: str,
    root: Folder,
    names: Sequence[str | None],
    size: tuple[int, int],
    categories: Mapping[int, str],
    only: int | None = None,
    colours: Callable[[], ColourTable] | None = None,
    others: Iterable[int] = (),
) -> Annotation:
    """Reads the tracks of the objects in `categories` (id → category) from one PNG of object ids per frame.

    Args:
        names: one PNG per frame; None for a frame that is not annotated.
        size: width and height of the frames in pixels.
        only: the one object of `categories`, if black and white PNGs may show it.
        colours: returns the object ids of colours, if PNGs may have colours.
        others: ids that sentences of other splits name.

    Raises:
        BadItem: a PNG is missing, damaged, no map of object ids, or of another size than its frame.
    """
    data: list[bytes] = []
    seen: set[int] = set()
    rles: list[list[str] | list[None]] = []
    white: list[str | None] = []  # the mask of black and white PNGs, as long as all are
    for name in names:
        if name is None:
            data.append(b"")
            rles.append([None] * len(categories))
            white.append(None)
            continue
        png = item_bytes(root, name, video)
        data.append(_kept(png))
        try:
            ids = _ids_of_size(png, size, colours)
        except LayoutError:  # of the label map, which concerns all videos
            raise
        except ValueError as error:
            raise BadItem(video, "decode", f"{root.path(name)}: {error}. Make it again.") from error
        found = set(ids_of(ids))
        seen |= found
        rles.append([mask_to_rle(ids == id) for id in categories])
        if only is not None and found <= {0, white_of(png)}:
            white.append(mask_to_rle(ids > 0))
        else:
            only = None
    tracks = tuple(
        ObjectTrack(id, rle, category)
        for (id, category), rle in zip(categories.items(), zip(*rles, strict=True), strict=True)
    )
    if only is not None and only not in seen and seen - {0}:
        tracks, seen = (ObjectTrack(only, tuple(white), categories[only]),), {only}
    absent = tuple(id for id in categories if id not in seen)
    return Annotation(tracks, absent, tuple(sorted(seen - {0, *categories, *others})), tuple(data))


def read_masks(
    video: str, root: Folder, folder: str, names: Sequence[str], size: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """Reads the masks of one object from a folder of PNGs, in which it is whatever is not 0.

    Args:
        names: of the frames; one that has no PNG does not show the object.
        size: width and height of the frames in pixels.

    Returns:
        The RLE of each frame, and the bytes of each PNG, or their hash if they are many.

    Raises:
        BadItem: a PNG is damaged, or of another size than its frame.
    """
    there = set(root.names(folder, ".png"))
    rles, data = [], []
    for name in (f"{name}.png" for name in names):
        if name not in there:
            rles.append(rle_union([], (size[1], size[0])))
            data.append(b"")
            continue
        png = item_bytes(root, f"{folder}/{name}", video)
        data.append(_kept(png))
        try:
            rles.append(mask_to_rle(_ids_of_size(png, size, None) > 0))
        except ValueError as error:
            raise BadItem(video, "decode", f"{root.path(f'{folder}/{name}')}: {error}. Unpack it again.") from error
    return tuple(rles), tuple(data)


def shared_tracks(masks: Iterable[tuple[str, Sequence[str]]]) -> tuple[list[int], tuple[ObjectTrack, ...]]:
    """Numbers the objects of sentences that have a folder of masks each: equal ones are one object.

    Args:
        masks: of each sentence, the id of its object, empty if it is not known, and the RLE of each frame.

    Returns:
        The number of each sentence's object, from 1, and the objects.
    """
    numbers: dict[tuple[str, tuple[str, ...]], int] = {}
    of_sentences = [numbers.setdefault((id, tuple(rles)), len(numbers) + 1) for id, rles in masks]
    return of_sentences, tuple(ObjectTrack(number, rles) for (_, rles), number in numbers.items())


def _kept(png: bytes) -> bytes:
    return png if len(png) <= _LARGE else hashlib.sha256(png).digest()


def _ids_of_size(
    data: bytes, size: tuple[int, int], colours: Callable[[], ColourTable] | None
) -> Integer[np.ndarray, "h w"]:
    with opened_image(data) as image:
        width, height = image.size
    if (width, height) != size:
        raise ValueError(
            f"the mask is {width}x{height}, but its frame {size[0]}x{size[1]}. Masks of images have the size of the "
            f"stored or (--exif apply) the turned image, those of video files the size at which players show them"
        )
    try:
        return object_map(data)
    except ColouredMask:
        if colours is None:
            raise
        return ids_of_colours(data, colours())
