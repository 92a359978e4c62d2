"""Conversion of COCO annotations: masks as polygons or RLE, boxes as x, y, width, height. Pure functions."""

import math
from typing import Any

import numpy as np
import pycocotools.mask

from pipelines.errors import shown
from pipelines.sources.label_files import plain
from sgmg.masks import Size, rle_to_coco, rle_union

_coco: Any = pycocotools.mask  # its type hints lack polygons, and counts as bytes
_LONGEST = 2**20
"""Pixels of the longest outline of a polygon."""


def segmentation_to_rle(segmentation: object, size: Size) -> str:
    """Converts polygons (their union is the mask), plain run lengths or a compressed RLE to a compressed RLE.

    >>> segmentation_to_rle({"size": [2, 2], "counts": [2, 2]}, (2, 2))
    '22'

    Raises:
        ValueError: the segmentation is none of these, is damaged, or belongs to an image of another size.
    """
    if isinstance(segmentation, list):
        return _polygons_to_rle(segmentation, size)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if not isinstance(segmentation, dict) or not isinstance(counts, (list, str)):
        raise ValueError(f"its segmentation is neither polygons nor RLE, but {shown(segmentation)}")
    if segmentation.get("size") != list(size):
        raise ValueError(f"its RLE has size {shown(segmentation.get('size'))}, but height and width are {list(size)}")
    if isinstance(counts, str):
        return rle_to_coco(counts, size)["counts"]
    if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != math.prod(size):
        raise ValueError(f"its run lengths do not add up to the {math.prod(size)} pixels of the image")
    return _coco.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode("ascii")


def coco_rle(text: str, size: Size) -> str:
    """Converts a segmentation of COCO, as JSON text, to a compressed RLE.

    Polygons are filled by pycocotools, clipped at the edges of the image.

    Raises:
        ValueError: it is none, is damaged, or belongs to an image of another size.
    """
    segmentation = plain(text.encode())
    if isinstance(segmentation, list) and segmentation:
        kept = [polygon for polygon in segmentation if not _is_outside(polygon, size)]
        return segmentation_to_rle(kept, size) if kept else rle_union([], size)
    return segmentation_to_rle(segmentation, size)


def clipped_xyxy(bbox: object, size: Size) -> tuple[float, float, float, float]:
    """Returns the corners, in pixels, of a COCO box, clipped to the image.

    >>> clipped_xyxy([-1, 2, 5, 10], (8, 8))
    (0.0, 2.0, 4.0, 8.0)

    Raises:
        ValueError: the box is not four finite numbers.
    """
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_finite, bbox)):
        raise ValueError(f"its bbox is {shown(bbox)}, not four finite numbers x, y, width, height")
    x, y, width, height = map(float, bbox)
    rows, columns = map(float, size)
    return _clip(x, columns), _clip(y, rows), _clip(x + width, columns), _clip(y + height, rows)


def _polygons_to_rle(polygons: list[Any], size: Size) -> str:
    if not polygons:
        raise ValueError("its segmentation is an empty list")
    reach = max(size)
    for polygon in polygons:
        # pycocotools does not check: it takes four numbers for a box, and distant corners exhaust its memory.
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(is_finite, polygon)):
            raise ValueError(f"its polygon {shown(polygon)} is not at least three corners x, y of finite numbers")
        if min(polygon) < -reach or max(polygon) > 2 * reach:
            raise ValueError(f"its polygon {shown(polygon)} lies far outside the image of {size[1]}x{size[0]}")
        steps = np.abs(np.diff(np.reshape([*polygon, *polygon[:2]], (-1, 2)), axis=0)).max(axis=1)
        if steps.sum() > _LONGEST:  # pycocotools keeps points all along the outline
            raise ValueError(f"its polygon {shown(polygon)} has an outline of more than {_LONGEST} pixels")
    return _coco.merge(_coco.frPyObjects(polygons, *size))["counts"].decode("ascii")


def _is_outside(polygon: object, size: Size) -> bool:
    """Returns whether a polygon is well-formed, and wholly beside the image."""
    if not isinstance(polygon, list) or len(polygon) < 6 or not all(type(value) in (int, float) for value in polygon):
        return False
    xs, ys = polygon[::2], polygon[1::2]
    return max(xs) <= 0 or max(ys) <= 0 or min(xs) >= size[1] or min(ys) >= size[0]


def is_finite(value: object) -> bool:
    """Returns whether a JSON value is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]
    except OverflowError:  # a whole number beyond those of floats
        return False


def _clip(value: float, limit: float) -> float:
    return min(max(value, 0.0), limit)
