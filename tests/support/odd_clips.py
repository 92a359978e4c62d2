"""Video files that are odd on purpose, made for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

RATE = 10
"""Frames a second."""


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture of four flat colours, so that no codec changes it much."""
    colours = np.random.default_rng(seed).integers(40, 216, (2, 2, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    return colours[rows[:, None], columns]


def write_as(path: Path, frames: Sequence[np.ndarray], format: str, codec: str, pixels: str = "yuv420p") -> Path:
    """A video file of the frames in a container and codec of FFmpeg, whatever the suffix."""
    with av.open(f"file:{path}", mode="w", format=format) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_sizes(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """A video file of one track whose frames have several sizes: motion JPEG, each frame as it comes."""
    with av.open(f"file:{path}", mode="w") as container:
        stream = container.add_stream("mjpeg", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj444p"
        encoders: dict[tuple[int, ...], av.VideoCodecContext] = {}
        for place, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj444p")
            frame.pts, frame.time_base = place, Fraction(1, RATE)
            if image.shape not in encoders:
                encoder = encoders[image.shape] = av.VideoCodecContext.create("mjpeg", "w")
                encoder.height, encoder.width = image.shape[:2]
                encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuvj444p", Fraction(1, RATE), Fraction(RATE)
            for packet in encoders[image.shape].encode(frame):
                packet.stream = stream
                container.mux(packet)
    return path


def write_tracks(
    path: Path, tracks: Sequence[Sequence[np.ndarray]], codec: str = "mpeg4", cover: np.ndarray | None = None
) -> Path:
    """A video file of several tracks, the last of which may be a cover."""
    with av.open(f"file:{path}", mode="w") as container:
        streams = []
        for frames in tracks:
            stream = container.add_stream(codec, rate=RATE)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        if cover is not None:
            stream = container.add_stream("mjpeg", rate=RATE)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = cover.shape[:2]
            stream.pix_fmt = "yuvj420p"
            stream.disposition = Disposition.attached_pic
            streams.append(stream)
            tracks = [*tracks, [cover]]
        for stream, frames in zip(streams, tracks, strict=True):
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return path
