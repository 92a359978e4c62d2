"""Writing of H.264 videos in MP4 files that browsers can play while loading, with a time stamp per picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.reformatter import Colorspace
from jaxtyping import UInt8

from sgmg.masks import Size

TICKS = 90_000
"""Time base, in ticks per second; a frame of any usual rate lasts a whole number of ticks."""

_BT709 = 1  # code of the BT.709 colour space in H.264
_ALONE = 1.0  # duration of a video of one picture, in seconds
# Without B-frames (bf): with them the file would end too early if times are uneven.
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}
_SEEK = 30  # pictures between keyframes; few, so that seeking is fast


class Mp4:
    """Encoder of an open MP4 file. The first picture is at time 0, the others relative to it."""

    def __init__(self, container: OutputContainer, size: Size) -> None:
        self._container = container
        stream = container.add_stream("libx264", rate=Fraction(24), options=_OPTIONS)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = Fraction(1, TICKS), _SEEK, 1
        context.flags |= Flags.frame_duration  # otherwise the last picture has no duration
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        self._stream = stream
        self._first: float | None = None
        self._waiting: av.VideoFrame | None = None
        self._gap = round(_ALONE * TICKS)

    def add(self, picture: UInt8[np.ndarray, "h w 3"], time: float) -> None:
        """Adds a picture with even sides, shown from `time` (in seconds, not decreasing) until the next one."""
        if self._first is None:
            self._first = time
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = round((time - self._first) * TICKS), Fraction(1, TICKS)
        if self._waiting is not None:
            assert self._waiting.pts is not None
            frame.pts = max(frame.pts, self._waiting.pts + 1)  # equal times would be refused
            self._gap = frame.pts - self._waiting.pts
            self._encode()
        self._waiting = frame

    def end(self) -> None:
        """Writes the last picture, shown as long as the one before it, and flushes the encoder."""
        if self._waiting is not None:
            self._encode()
        self._container.mux(self._stream.encode(None))

    def _encode(self) -> None:
        assert self._waiting is not None
        self._waiting.duration = self._gap
        self._container.mux(self._stream.encode(self._waiting))


@contextmanager
def mp4_file(path: Path, size: Size) -> Iterator[Mp4]:
    """Opens an MP4 file for pictures of `size` (height, width; both even); complete when the block ends without error.

    Raises:
        OSError: the disk is full, or permission is denied.
    """
    with av.open(f"file:{path}", mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = Mp4(container, size)
        yield video
        video.end()
