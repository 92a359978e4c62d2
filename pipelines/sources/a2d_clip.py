"""Readers of the two binary files of A2D-Sentences: an mp4 to encoded frames, an h5 file to masks and boxes."""

import io
from dataclasses import dataclass
from typing import Any

import av
import cv2
import h5py
import numpy as np
from av.error import FFmpegError
from einops import rearrange
from jaxtyping import Bool, Float

from pipelines.errors import BadItem, Dropped
from pipelines.safety.limits import MAX_ARRAY_BYTES
from pipelines.video.tracks import is_decodable, limit_decoder, why_no_track
from sgmg.masks import Size, masks_to_rles


@dataclass(frozen=True, slots=True)
class A2DClip:
    """The frames of one video as JPEG, and their timestamps."""

    frames: tuple[bytes, ...]
    width: int
    height: int
    fps: float | None
    timestamps: tuple[float, ...] | None  # seconds
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance at one frame: the RLE of its mask, and its box, xyxy in pixels."""

    rle: str
    box: tuple[float, float, float, float]


Annotation = dict[int, Instance]
"""The content of the h5 file of a frame, by instance id."""

_FIELDS = ("instance", "reMask", "reBBox")
_DAMAGE = (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, MemoryError)
"""Errors that h5py and NumPy raise for damaged bytes."""


def decoded_clip(video: str, path: str, data: bytes, quality: int) -> A2DClip:
    """Decodes every frame of a video and encodes it as JPEG 4:4:4 of the given quality.

    Raises:
        BadItem: the file is no video, holds no frame, is damaged, or its frames differ in size.
    """
    frames: list[bytes] = []
    times: list[float | None] = []
    sizes: set[tuple[int, int]] = set()
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if not is_decodable(stream):
                raise BadItem(video, "decode", f"{path}: {why_no_track(container)}.")
            limit_decoder(stream)
            rate, promised = stream.average_rate, stream.frames
            for frame in container.decode(stream):
                frames.append(_jpeg(frame.to_ndarray(format="bgr24"), quality))
                times.append(frame.time)
                sizes.add((frame.width, frame.height))
    except BadItem:
        raise
    except (FFmpegError, LookupError, ValueError) as error:
        raise BadItem(video, "decode", f"{path} is no video or damaged ({error}). Unpack it again.") from error
    if len(sizes) != 1:
        found = f"frames of sizes {sorted(sizes)}" if sizes else "no frame"
        raise BadItem(video, "decode", f"{path} holds {found}. Unpack it again.")
    ((width, height),) = sizes
    lost = f"{len(frames)} of {promised}"
    return A2DClip(
        frames=tuple(frames),
        width=width,
        height=height,
        fps=float(rate) if rate else None,
        timestamps=None if None in times else tuple(time for time in times if time is not None),
        dropped=(Dropped(video, "fewer frames than the header says", lost),) if len(frames) < promised else (),
    )


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    written, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])
    assert written
    return data.tobytes()


def annotation_of_h5(video: str, path: str, data: bytes, size: Size) -> Annotation:
    """Returns masks and boxes of an h5 file (spec data.md §1): n instances, `reMask` (n, W, H), or (W, H) if n = 1.

    Raises:
        BadItem: the file is damaged or lacks a field, its fields contradict one another, or its masks have another size
            than the frame.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            ids, masks, boxes = _fields(video, path, file, size)
    except BadItem:
        raise
    except _DAMAGE as error:
        raise BadItem(video, "read", f"{path} is no HDF5 file or damaged ({error}). Unpack it again.") from error
    rles = masks_to_rles(rearrange(masks, "n w h -> n h w"))
    corners = [tuple(box) for box in rearrange(boxes, "xyxy n -> n xyxy").tolist()]
    return {found: Instance(rle, box) for found, rle, box in zip(ids, rles, corners, strict=True)}  # pyright: ignore


def _fields(
    video: str, path: str, file: h5py.File, size: Size
) -> tuple[list[int], Bool[np.ndarray, "n w h"], Float[np.ndarray, "xyxy n"]]:
    """Returns instances, masks and boxes. Checks their shapes before reading: a damaged file may declare terabytes."""
    found: dict[str, Any] = {name: one for name in _FIELDS if isinstance(one := file.get(name), h5py.Dataset)}
    if missing := [name for name in _FIELDS if name not in found]:
        reason = f"{path} lacks {', '.join(missing)}. Unpack the annotations with instances again."
        raise BadItem(video, "read", reason)
    instances, masks, boxes = (found[name] for name in _FIELDS)
    n = instances.size
    shape = (1, *masks.shape) if masks.ndim == 2 else masks.shape
    if len(shape) != 3 or shape[0] != n or boxes.size != 4 * n:
        raise BadItem(
            video,
            "read",
            f"{path} has {n} instances, reMask of shape {masks.shape} and reBBox of shape {boxes.shape}, which do not "
            f"fit. Unpack it again.",
        )
    if (stored := shape[:0:-1]) != size:
        raise BadItem(
            video,
            "read",
            f"{path} has masks of height, width {stored}, but the clip has {size}. "
            f"Use the clips of CLIPS320 that belong to the annotations.",
        )
    if any(one.dtype.kind not in "buif" or one.nbytes > MAX_ARRAY_BYTES for one in found.values()):
        kinds = ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in found.items())
        reason = f"{path} has fields that are no numbers, or of more than {MAX_ARRAY_BYTES} bytes: {kinds}"
        raise BadItem(video, "read", f"{reason}. Unpack it again.")
    ids = [int(one) for one in np.asarray(instances).ravel()]
    return ids, np.asarray(masks).reshape(shape) > 0, np.asarray(boxes, dtype=np.float64).reshape(4, n)
