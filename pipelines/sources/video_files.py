"""A whole video file as encoded frames. For clips to train on: a video of hours is `pipelines.video.decoder`'s."""

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
        timestamps: seconds as the file gives them; None where it does not time every frame.
        fps: average frames a second, where the file says.
    """

    frames: tuple[bytes, ...]
    width: int
    height: int
    timestamps: tuple[float, ...] | None
    fps: float | None


def decode_video(data: bytes, quality: int = QUALITY) -> DecodedVideo:
    """The frames in the order they are shown, turned as the file asks, as JPEG.

    Raises:
        ValueError: it is no video, has no picture, is damaged or cut short, or turns by something else than 90 degrees.
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
