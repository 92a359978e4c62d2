"""Reader of JHMDB's masks, a MATLAB file, whose sizes are checked before anything is unpacked."""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.io
from einops import rearrange
from jaxtyping import Bool

from pipelines.errors import BadItem
from pipelines.safety.limits import MAX_ARRAY_BYTES

_NAME = "part_mask"
_HEAD, _TAG = 128, 8
"""Bytes of the head of a file of version 5, and of that of each variable: its kind, and the bytes that follow."""
_COMPRESSED = 15
_NUMBERS = ("logical", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "single", "double")
"""MATLAB's classes of plain numbers. scipy would make anything of the others: objects, functions, cells, structures."""
_WIDEST = 8  # bytes of a number: scipy makes of all of them what their class says


def puppet_masks(video: str, path: str, data: bytes) -> Bool[np.ndarray, "t h w"]:
    """Returns `part_mask` of a .mat file.

    Args:
        video: for messages.
        path: of the file, for messages.
        data: the whole file.

    Raises:
        BadItem: the file is no MATLAB file, is damaged or too large, or its `part_mask` is no stack of masks.
    """
    try:
        return _masks(b"".join(_unpacked(data)))
    except _Unfit as error:
        raise BadItem(video, "read", f"{path} {error}. Unpack puppet_mask again.") from error
    except Exception as error:  # scipy raises anything for damaged bytes; NotImplementedError for version 7.3, HDF5
        reason = f"{path} is no MATLAB file or damaged ({type(error).__name__}: {error}). Unpack it again."
        raise BadItem(video, "read", reason) from error


class _Unfit(Exception):
    """The file holds something else than masks."""


def _masks(data: bytes) -> Bool[np.ndarray, "t h w"]:
    """Reads the masks of a file that has no compressed variables."""
    listed = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(io.BytesIO(data))}
    if _NAME not in listed:
        raise _Unfit(f"lacks {_NAME}")
    shape, kind = listed[_NAME]
    if kind not in _NUMBERS or not 2 <= len(shape) <= 3:
        raise _Unfit(f"has a {_NAME} of class {kind} and size {'x'.join(map(str, shape))}, not one mask a frame")
    if min(shape) < 1 or math.prod(shape) * _WIDEST > MAX_ARRAY_BYTES:
        limit = f"masks have 1 to {MAX_ARRAY_BYTES // _WIDEST} numbers in all"
        raise _Unfit(f"has a {_NAME} of size {'x'.join(map(str, shape))}, but {limit}")
    found: dict[str, Any] = scipy.io.loadmat(io.BytesIO(data), variable_names=[_NAME])
    masks = np.atleast_3d(found[_NAME])  # MATLAB drops a last axis of length 1.
    if masks.dtype.kind not in "buif" or masks.ndim != 3:
        raise _Unfit(f"has a {_NAME} of {masks.dtype} with {masks.ndim} axes, not one mask a frame")
    return rearrange(masks > 0, "h w t -> t h w")


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yields the parts of a file with its variables unpacked, up to `limits.MAX_ARRAY_BYTES` in all."""
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEAD - 2 : _HEAD])
    if order is None or 0 in data[:4]:  # version 4, which compresses nothing, begins with a number
        yield data
        return
    yield data[:_HEAD]
    place, left = _HEAD, MAX_ARRAY_BYTES
    while place + _TAG <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        end = place + _TAG + size
        if kind == _COMPRESSED:
            part = zlib.decompressobj().decompress(data[place + _TAG : end], left + 1)
        else:
            part = data[place:end]
        left -= len(part)
        if left < 0:
            raise _Unfit(f"holds more than {MAX_ARRAY_BYTES} bytes when it is unpacked")
        yield part
        place = end
