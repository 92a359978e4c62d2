"""Decoding of whole video files to encoded frames, for training clips; long videos use `pipelines.video.decoder`."""

import io
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from pipelines.video.pixels import orientation_of, turned

QUALITY = 95


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """Every frame of a video as JPEG, upright.

    Args:
        timestamps: seconds, from the file; None if it does not give a time for every frame.
        fps: average frames per second, if the file gives it.
    """

    frames: tuple[bytes, ...]
    width: int
    height: int
    timestamps: tuple[float, ...] | None
    fps: float | None


def decode_video(data: bytes, quality: int = QUALITY) -> DecodedVideo:
    """Decodes the frames in display order, rotated as the file specifies, and encodes them as JPEG.

    Raises:
        ValueError: the file is no video, has no picture, is damaged or cut short, or its rotation is no multiple of 90
            degrees.
    """
    if not data:
        raise ValueError("the file is empty")
    frames: list[bytes] = []
    times: list[float] = []
    sizes: set[tuple[int, int]] = set()
    orientation = ""
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise ValueError("the file holds sound, but no video")
            fps = float(stream.average_rate) if stream.average_rate else None
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise ValueError(f"frame {len(frames)} is damaged")
                orientation = orientation if frames else orientation_of(frame)
                image = turned(frame.to_ndarray(format="bgr24"), orientation)
                sizes.add((image.shape[1], image.shape[0]))
                frames.append(_jpeg(image, quality))
                times += [] if frame.time is None else [frame.time]
    except FFmpegError as error:
        where = f"damaged or cut short after {len(frames)} frames" if frames else "no video, or cut short"
        raise ValueError(f"the file is {where} ({error.strerror})") from error
    if len(sizes) != 1:
        raise ValueError(f"frames of several sizes: {sorted(sizes)}" if sizes else "the file holds no frame")
    timestamps = tuple(times) if len(times) == len(frames) else None
    return DecodedVideo(tuple(frames), *sizes.pop(), timestamps, fps)


def _jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()
