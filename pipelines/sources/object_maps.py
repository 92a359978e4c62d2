"""Conversion of PNGs whose pixels hold object ids, one per frame, to tracks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.records import ObjectTrack
from pipelines.sources.reading import item_bytes
from sgmg.masks import masks_to_rles


@dataclass(frozen=True, slots=True)
class Annotation:
    """The objects of one video that have a pixel in some frame, and the other content of its PNGs.

    Args:
        tracks: in the order of the requested ids.
        absent: requested ids that have no pixel in any frame.
        unknown: ids in the PNGs that were not requested.
        data: bytes of the PNGs, one per frame; empty for a frame that is not annotated.
    """

    tracks: tuple[ObjectTrack, ...]
    absent: tuple[int, ...]
    unknown: tuple[int, ...]
    data: tuple[bytes, ...]


def read_annotation(
    video: str, root: Folder, names: Sequence[str | None], size: tuple[int, int], categories: Mapping[int, str]
) -> Annotation:
    """Reads the tracks of the objects in `categories` (id → category) from one PNG of object ids per frame.

    Args:
        names: one PNG per frame; None for a frame that is not annotated.
        size: width and height of the frames in pixels.

    Raises:
        BadItem: a PNG is missing, damaged, no map of object ids, or of another size than its frame.
    """
    data: list[bytes] = []
    seen: set[int] = set()
    rles: list[list[str] | list[None]] = []
    for name in names:
        if name is None:
            data.append(b"")
            rles.append([None] * len(categories))
            continue
        data.append(item_bytes(root, name, video))
        try:
            ids = _ids_of_size(data[-1], size)
        except ValueError as error:
            raise BadItem(video, "decode", f"{root.path(name)}: {error}. Make it again.") from error
        seen.update(np.flatnonzero(np.bincount(ids.ravel())).tolist())
        rles.append(masks_to_rles(np.stack([ids == id for id in categories])) if categories else [])
    tracks = tuple(
        ObjectTrack(id, rle, category)
        for (id, category), rle in zip(categories.items(), zip(*rles, strict=True), strict=True)
        if id in seen
    )
    absent = tuple(id for id in categories if id not in seen)
    return Annotation(tracks, absent, tuple(sorted(seen - {0} - set(categories))), tuple(data))


def _ids_of_size(data: bytes, size: tuple[int, int]) -> Int[np.ndarray, "h w"]:
    ids = object_map(data)
    height, width = ids.shape
    if (width, height) != size:
        raise ValueError(
            f"the mask is {width}x{height}, but its frame {size[0]}x{size[1]} (as stored: a rotation in EXIF is not "
            f"applied)"
        )
    return ids
