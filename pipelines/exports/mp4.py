"""Pictures as an H.264 video in an MP4 file that browsers play while it loads, each shown at its own time."""

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
"""Steps of a second that times are kept in: every usual frame rate is a whole number of them."""

_BT709 = 1  # the number of these colours in H.264
_ALONE = 1.0  # seconds that a single picture is shown
# No frame is coded ahead of its time (bf): the file would end too early where times are uneven.
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}
_SEEK = 30  # pictures from one that stands for itself to the next, so that jumping to a time is quick


class Mp4:
    """A video that is being written. Times are those given less the first one."""

    def __init__(self, container: OutputContainer, size: Size) -> None:
        self._container = container
        stream = container.add_stream("libx264", rate=Fraction(24), options=_OPTIONS)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base, context.gop_size, context.thread_count = Fraction(1, TICKS), _SEEK, 1
        context.flags |= Flags.frame_duration  # else the last one is gone in no time
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        self._stream = stream
        self._first: float | None = None
        self._waiting: av.VideoFrame | None = None
        self._gap = round(_ALONE * TICKS)

    def add(self, picture: UInt8[np.ndarray, "h w 3"], time: float) -> None:
        """The next picture: both sides even, shown from `time` (seconds, never falling) until the next one."""
        if self._first is None:
            self._first = time
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = round((time - self._first) * TICKS), Fraction(1, TICKS)
        if self._waiting is not None:
            assert self._waiting.pts is not None
            frame.pts = max(frame.pts, self._waiting.pts + 1)  # times of no difference would be refused
            self._gap = frame.pts - self._waiting.pts
            self._encode()
        self._waiting = frame

    def end(self) -> None:
        """The last picture is shown as long as the one before."""
        if self._waiting is not None:
            self._encode()
        self._container.mux(self._stream.encode(None))

    def _encode(self) -> None:
        assert self._waiting is not None
        self._waiting.duration = self._gap
        self._container.mux(self._stream.encode(self._waiting))


@contextmanager
def mp4_file(path: Path, size: Size) -> Iterator[Mp4]:
    """An MP4 file of pictures of height, width `size`, both even; whole when the block ends without error.

    Raises:
        OSError: there is no room, or no permission.
    """
    with av.open(f"file:{path}", mode="w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = Mp4(container, size)
        yield video
        video.end()
