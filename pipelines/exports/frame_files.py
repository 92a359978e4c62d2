"""The predicted frames of a video as JPEGs, decoded again as annotation decoded them: upright, at the size of masks."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipelines.errors import BadItem
from pipelines.files import Folder, number_order
from pipelines.predictions import Prediction
from pipelines.video.decoder import VideoDecoder
from pipelines.video.defaults import TIME_LIMIT
from pipelines.video.frames_by_name import FramesByName, TimedFrame
from pipelines.video.listing import Video

FRAMES = "frames"
"""Folder, in that of a run, of a folder of frames for each video."""
SUFFIX = ".jpg"
QUALITY = 95
"""Of the JPEGs, as Pillow counts it."""


def frame_file(video: str, frame: str) -> str:
    """Returns the path of the file of a frame in the folder of a run.

    >>> frame_file("cat-0123456789", "00005")
    'frames/cat-0123456789/00005.jpg'
    """
    return f"{FRAMES}/{video}/{frame}{SUFFIX}"


def write_frames(
    out: Folder,
    video_id: str,
    video: Video,
    segments: Iterable[Sequence[Prediction]],
    present: Iterable[str] = (),
    *,
    time_limit: float = TIME_LIMIT,
) -> int:
    """Decodes the video again and writes its predicted frames as `frame_file` names them, each complete or not at all.

    Memory holds one segment of predictions, a few frames, and the names of the frames.

    Args:
        out: folder of the run.
        video_id: id of the video.
        video: the video itself.
        segments: for each segment, in order, the predictions of all expressions.
        present: names of frames that need not be written.
        time_limit: maximum seconds to wait for the decoder.

    Returns:
        The number of frames written.

    Raises:
        BadItem: the video changed, is missing, or some frames cannot be decoded any more; the others are written.
        OSError: the disk is full, or permission is denied.
    """
    done, written, missing = set(present), 0, 0
    with VideoDecoder(time_limit) as decoder, FramesByName(decoder, video) as frames:
        for part in segments:
            size = (part[0].height, part[0].width)
            times = frame_times(part)
            names = [name for name in times if name not in done]
            known = [time for name in names if (time := times[name]) is not None]
            done.update(names)
            missing += len(names)
            for frame in frames.read(names, known if len(known) == len(names) else ()) if names else ():
                _check_size(frame, video, size)
                out.write(frame_file(video_id, frame.name), encode_frame(frame.image))
                missing -= 1
                written += 1
    if missing:
        reason = f"{missing} of its predicted frames cannot be decoded any more: it changed since it was predicted"
        raise BadItem(video.path, FRAMES, reason)
    return written


def frame_times(rows: Sequence[Prediction]) -> dict[str, float | None]:
    """Returns the frames of the rows of a segment, in order, with their times in seconds; None where none is known."""
    found: dict[str, float | None] = {}
    for row in rows:
        times = row.timestamps or (None,) * len(row.frame_names)
        for name, time in zip(row.frame_names, times, strict=True):
            if found.get(name) is None:
                found[name] = time
    if all(len(row.frame_names) == len(found) for row in rows):
        return found
    return {name: found[name] for name in sorted(found, key=number_order)}  # damage cost some rows frames of others


def encode_frame(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encodes a frame as JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _check_size(frame: TimedFrame, video: Video, size: tuple[int, int]) -> None:
    """Checks that a frame has the size of its masks.

    Raises:
        BadItem: it has another one.
    """
    height, width = frame.image.shape[:2]
    if (height, width) != size:
        reason = f"its frames are {width} x {height}, those of its masks {size[1]} x {size[0]}: it changed"
        raise BadItem(video.path, FRAMES, reason)
