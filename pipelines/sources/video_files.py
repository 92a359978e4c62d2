"""Decoding of whole video files to encoded frames, for training clips; long videos use `pipelines.video.decoder`."""

import io
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from pipelines.video.pixels import aspect_of, orientation_of, rgb, square_size, turned
from pipelines.video.tracks import choose_track, limit_decoder, why_no_track

QUALITY = 95


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """Every frame of a video as JPEG, upright, with square pixels.

    Args:
        timestamps: seconds, from the file; None if it does not give a time for every frame.
        fps: average frames per second, if the file gives it.
        other_tracks: of moving pictures, that are not read, and the one that is; empty if there is none.
    """

    frames: tuple[bytes, ...]
    width: int
    height: int
    timestamps: tuple[float, ...] | None
    fps: float | None
    other_tracks: str = ""


def decode_video(data: bytes, quality: int = QUALITY) -> DecodedVideo:
    """Decodes the frames in display order and encodes them as JPEG: as a player shows them, upright, of square pixels.

    That is the size of the masks that annotation writes.

    Raises:
        ValueError: the file is no video, has no picture, is damaged or cut short, or its rotation is no multiple of 90
            degrees.
    """
    if not data:
        raise ValueError("the file is empty")
    frames: list[bytes] = []
    times: list[float] = []
    size: tuple[int, int] | None = None
    orientation = ""
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            track = choose_track(container)
            if track is None:
                raise ValueError(why_no_track(container))
        with av.open(io.BytesIO(data), mode="r", metadata_errors="replace") as container:
            stream = container.streams[track.index]
            assert isinstance(stream, av.VideoStream)
            limit_decoder(stream)
            fps = float(stream.average_rate) if stream.average_rate else None
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise ValueError(f"frame {len(frames)} is damaged")
                orientation = orientation if frames else orientation_of(frame)
                shown = square_size(frame.width, frame.height, aspect_of(stream))
                image = turned(rgb(frame, shown), orientation)
                height, width = image.shape[:2]
                if size not in (None, (width, height)):
                    raise ValueError(
                        f"frame {len(frames):05d} is {width} x {height} pixels, those before it {size[0]} x {size[1]}. "
                        f"Cut the file there: masks and frames of a video have one size"
                    )
                size = (width, height)
                frames.append(_jpeg(image[..., ::-1], quality))
                times += [] if frame.time is None else [frame.time]
    except FFmpegError as error:
        where = f"damaged or cut short after {len(frames)} frames" if frames else "no video, or cut short"
        raise ValueError(f"the file is {where} ({error.strerror})") from error
    if size is None:
        raise ValueError("the file holds no frame")
    timestamps = tuple(times) if len(times) == len(frames) else None
    return DecodedVideo(tuple(frames), *size, timestamps, fps, track.remark)


def _jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()
