"""Small video files, made for tests of annotation."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np

RATE = 10
"""Frames a second."""


def moving(seed: int, t: int, height: int = 40, width: int = 56) -> Iterator[np.ndarray]:
    """t frames of coarse colours that drift to the right."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = cells.repeat(8, axis=0).repeat(8, axis=1)
    return (np.roll(image, 2 * place, axis=1) for place in range(t))


def write_video(path: Path, frames: Iterable[np.ndarray], rate: int = RATE, codec: str = "mpeg4") -> Path:
    """A video file of the frames, every 12th a key frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", mode="w") as container:
        plain = {"bf": "0", "sc_threshold": "0"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=plain)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 12
        for number, image in enumerate(frames):
            if not number:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def damage(path: Path, frame: int) -> None:
    """Breaks one frame of an H.264 file; those up to the next key frame cannot be decoded either."""
    with av.open(str(path)) as container:
        place = [packet for packet in container.demux(video=0) if packet.size][frame].pos
    data = bytearray(path.read_bytes())
    assert place is not None
    data[place : place + 4] = b"\xff\xff\xff\xff"  # the length of its first unit
    path.write_bytes(data)
