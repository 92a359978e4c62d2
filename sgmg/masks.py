"""Conversions and operations of masks, as arrays (True = object) and as COCO's compressed run lengths (RLE).

An RLE here is the bare string of counts, as stored in Parquet; the frame's (height, width) is a separate argument.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import cv2
import numpy as np
import pycocotools.mask
from einops import rearrange
from jaxtyping import Bool, Int, UInt8

_coco: Any = pycocotools.mask  # its type hints know neither stacks nor that counts are bytes

Size = tuple[int, int]
"""(height, width) in pixels."""


def mask_to_rle(mask: Bool[np.ndarray, "h w"]) -> str:
    """Encodes one mask as COCO compressed RLE.

    >>> mask_to_rle(np.array([[False, True], [False, True]]))
    '22'
    """
    return masks_to_rles(mask[None])[0]


def masks_to_rles(masks: Bool[np.ndarray, "t h w"]) -> list[str]:
    """Encodes masks as COCO compressed RLEs.

    Raises:
        TypeError: the masks are not boolean.
        ValueError: the masks do not have the axes t, h, w.
    """
    if masks.dtype != np.bool_:
        raise TypeError(f"Masks are boolean here, not {masks.dtype}. Say what is object, for instance `masks > 0`.")
    if masks.ndim != 3:
        raise ValueError(f"A stack of masks has axes t, h, w, but its shape is {masks.shape}. Add or pick an axis.")
    columns_first = np.asfortranarray(rearrange(masks.view(np.uint8), "t h w -> h w t"))
    return [rle["counts"].decode("ascii") for rle in _coco.encode(columns_first)]


def masks_to_bits(masks: Bool[np.ndarray, "*stack h w"]) -> UInt8[np.ndarray, "*stack n"]:
    """Packs masks into bits, down the columns as RLE runs; the last byte of a mask is filled up with zeros.

    >>> masks_to_bits(np.array([[False, True], [False, True]])).tolist()
    [48]
    """
    *stack, height, width = masks.shape
    bits = np.empty((prod(stack), -(-height * width // 8)), dtype=np.uint8)
    for packed, mask in zip(bits, masks.reshape(-1, height, width), strict=True):
        columns_first = cv2.transpose(np.ascontiguousarray(mask).view(np.uint8))
        packed[:] = np.packbits(np.asarray(columns_first, dtype=np.uint8))
    return bits.reshape(*stack, bits.shape[1])


def bits_to_rles(bits: UInt8[np.ndarray, "t n"], size: Size) -> list[str]:
    """Encodes masks that were packed by `masks_to_bits` as COCO compressed RLEs.

    >>> bits_to_rles(np.array([[48]], dtype=np.uint8), (2, 2))
    ['22']
    """
    height, width = size
    columns_first = np.unpackbits(bits, axis=-1, count=height * width).reshape(-1, width, height)
    return [rle["counts"].decode("ascii") for rle in _coco.encode(rearrange(columns_first, "t w h -> h w t"))]


def rle_to_mask(rle: str, size: Size) -> Bool[np.ndarray, "h w"]:
    """Decodes one RLE.

    >>> rle_to_mask("22", (2, 2)).tolist()
    [[False, True], [False, True]]

    Raises:
        ValueError: the RLE is damaged or belongs to a frame of another size.
    """
    return rles_to_masks([rle], size)[0]


def rles_to_masks(rles: Sequence[str], size: Size) -> Bool[np.ndarray, "t h w"]:
    """Decodes RLEs of one size.

    Raises:
        ValueError: an RLE is damaged or belongs to a frame of another size.
    """
    masks = np.empty((len(rles), *size), dtype=np.bool_)
    for mask, rle in zip(masks, rles, strict=True):
        runs = _runs(rle, size)
        # Runs go down the columns and begin with background; both ends of the array stay zero.
        within = runs[1 : runs.size // 2 * 2]
        columns = np.zeros(size[0] * size[1], dtype=np.uint8)
        columns[runs[0] : runs[0] + within.sum()] = np.repeat(np.arange(within.size) % 2 == 0, within)
        cv2.transpose(columns.reshape(size[::-1]), dst=mask.view(np.uint8))
    return masks


def resize_rles(rles: Sequence[str], size: Size, new_size: Size) -> list[str]:
    """Resizes masks, whose edges stay smooth: between pixels the mask is interpolated, and cut at one half.

    >>> resize_rles(["22"], (2, 2), (4, 4))
    ['88']

    Raises:
        ValueError: an RLE is damaged or belongs to a frame of another size.
    """
    height, width = new_size
    grown = np.empty((len(rles), *new_size), dtype=np.bool_)
    for larger, mask in zip(grown, rles_to_masks(rles, size), strict=True):
        larger[:] = cv2.resize(mask.view(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127
    return masks_to_rles(grown)


def rle_area(rle: str, size: Size) -> int:
    """Returns the number of object pixels.

    >>> rle_area("22", (2, 2))
    2
    """
    return int(_runs(rle, size)[1::2].sum())


def rle_to_xywh(rle: str, size: Size) -> tuple[float, float, float, float]:
    """Returns the box of a mask in COCO's format: first corner, width, height; zeros without object.

    Unlike in `mask_to_xyxy`, first corner plus size is one pixel beyond the object.

    >>> rle_to_xywh("22", (2, 2))
    (1.0, 0.0, 1.0, 2.0)
    """
    x, y, width, height = _coco.toBbox(rle_to_coco(rle, size)).tolist()
    return x, y, width, height


def rle_to_xyxy(rle: str, size: Size) -> tuple[int, int, int, int]:
    """Returns the box of `mask_to_xyxy` without decoding the mask.

    >>> rle_to_xyxy("22", (2, 2)), rle_to_xyxy("4", (2, 2))
    ((1, 0, 1, 1), (0, 0, 0, 0))
    """
    runs = _runs(rle, size)
    ends = runs.cumsum()
    # Runs may have length 0.
    held = np.flatnonzero(runs[1::2]) * 2 + 1
    if not held.size:
        return 0, 0, 0, 0
    height = size[0]
    first_columns, first_rows = np.divmod(ends[held - 1], height)
    last_columns, last_rows = np.divmod(ends[held] - 1, height)
    # A run that continues in the next column covers the last row of one column and the first row of the next.
    across = bool((first_columns != last_columns).any())
    top, bottom = (0, height - 1) if across else (int(first_rows.min()), int(last_rows.max()))
    return int(first_columns[0]), top, int(last_columns[-1]), bottom


def rle_union(rles: Sequence[str], size: Size) -> str:
    """Returns the RLE of the union; an empty mask if there are no RLEs."""
    if not rles:
        return mask_to_rle(np.zeros(size, dtype=np.bool_))
    return _coco.merge([rle_to_coco(rle, size) for rle in rles])["counts"].decode("ascii")


def rle_shared_areas(rles: Sequence[str], other: str, size: Size) -> Int[np.ndarray, " n"]:
    """Counts the pixels that each of the RLEs shares with `other`.

    >>> rle_shared_areas(["4", "22"], "13", (2, 2)).tolist()
    [0, 2]
    """
    other_coco = rle_to_coco(other, size)
    shared = [_coco.merge([rle_to_coco(rle, size), other_coco], intersect=True) for rle in rles]
    return np.array([_coco.area(rle) for rle in shared], dtype=np.int64)


def rle_to_coco(rle: str, size: Size) -> dict[str, Any]:
    """Converts an RLE to a segmentation of COCO files and pycocotools.

    >>> rle_to_coco("22", (2, 2))
    {'size': [2, 2], 'counts': '22'}

    Raises:
        ValueError: the RLE is damaged or belongs to a frame of another size.
    """
    _runs(rle, size)
    return {"size": list(size), "counts": rle}


def _runs(rle: str, size: Size) -> Int[np.ndarray, " n"]:
    """Decodes and checks the run lengths of an RLE: background, object, background … down the columns."""
    # pycocotools does not check: it reads beyond the end of an RLE that is too short.
    runs = _spelled_runs(rle)
    if runs is None or runs.min() < 0 or runs.sum() != size[0] * size[1]:
        found = "no run lengths" if runs is None else f"runs of {runs.sum()} pixels"
        raise ValueError(
            f"RLE {rle[:40]!r} holds {found}, but a frame of height {size[0]}, width {size[1]} has "
            f"{size[0] * size[1]}. Give the (height, width) it was made at, or make it again if it is damaged."
        )
    return runs


def _spelled_runs(rle: str) -> Int[np.ndarray, " n"] | None:
    """Decodes the numbers of a compressed RLE; None if the string is not an RLE.

    A character holds 5 bits, low ones first; from the fourth number on, the last but one is subtracted.
    """
    codes = np.frombuffer(rle.encode(), dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 35 bits: COCO keeps runs in 32
        return None
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * places), starts)
    runs -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def mask_to_xyxy(masks: Bool[np.ndarray, "*stack h w"]) -> Int[np.ndarray, "*stack 4"]:
    """Returns the first column, first row, last column and last row of the object, in pixels; zeros without object.

    Parity: the last index, not one beyond it, so a one-pixel object has a box without area (spec data 3, "Target").

    >>> mask_to_xyxy(np.array([[False, False, False], [False, True, True]])).tolist()
    [1, 1, 2, 1]
    """
    columns, rows = np.any(masks, axis=-2), np.any(masks, axis=-1)
    first_last = [
        columns.argmax(axis=-1),
        rows.argmax(axis=-1),
        columns.shape[-1] - 1 - columns[..., ::-1].argmax(axis=-1),
        rows.shape[-1] - 1 - rows[..., ::-1].argmax(axis=-1),
    ]
    return np.where(columns.any(axis=-1)[..., None], np.stack(first_last, axis=-1), 0)


def mask_boundary(masks: Bool[np.ndarray, "*stack h w"]) -> Bool[np.ndarray, "*stack h w"]:
    """Returns the pixels that differ from their right, lower or lower right neighbour (spec data 5, F).

    In the last row only the right neighbour counts, in the last column only the lower one.

    >>> mask_boundary(np.array([[False, True], [False, True]])).tolist()
    [[True, False], [True, False]]
    """
    boundary = np.zeros_like(masks)
    boundary[..., :, :-1] = masks[..., :, :-1] != masks[..., :, 1:]
    boundary[..., :-1, :] |= masks[..., :-1, :] != masks[..., 1:, :]
    boundary[..., :-1, :-1] |= masks[..., :-1, :-1] != masks[..., 1:, 1:]
    return boundary


def dilate_disk(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels at a distance of at most `radius` from the object.

    >>> dilate_disk(np.array([[True, False, False]]), 1).tolist()
    [[True, True, False]]
    """
    return cv2.dilate(np.ascontiguousarray(mask).view(np.uint8), _disk(radius)).view(np.bool_)


@lru_cache(maxsize=8)
def _disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (y * y + x * x <= radius * radius).astype(np.uint8)
