"""What tests of several modules in pipelines/ share."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

Writer = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> Writer:
    """Writes frames (h w 3, or h w 4 with transparency) to a video file, every 12th a key frame; returns its path.

    Its arguments: name, frames, and if wanted codec, pixels (a pixel format), rate, stamps (milliseconds a frame),
    aspect (of a pixel), options (of the codec).
    """

    def write(
        name: str,
        frames: Iterable[np.ndarray],
        codec: str = "libx264",
        pixels: str = "yuv420p",
        rate: int = 25,
        stamps: Iterable[int] | None = None,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = None if stamps is None else iter(stamps)
        with av.open(f"file:{path}", mode="w") as container:
            stream = None
            for image in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=rate, options=options or {})
                    assert isinstance(stream, av.VideoStream)
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt, stream.codec_context.gop_size = pixels, 12
                    if aspect is not None:
                        stream.codec_context.sample_aspect_ratio = aspect
                    if times is not None:
                        stream.codec_context.time_base = Fraction(1, 1000)
                frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
                if times is not None:
                    frame.pts, frame.time_base = next(times), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            assert stream is not None
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def latin_1() -> Callable[[Path], Path]:
    """Spoils the tag of a video file that names its writer, so that it is no UTF-8: a café in Latin-1."""

    def spoil(path: Path) -> Path:
        data = path.read_bytes()
        assert b"Lavf" in data
        path.write_bytes(data.replace(b"Lavf", "café".encode("latin-1")))
        return path

    return spoil
