"""The frames that predictions speak of, decoded once more by their names."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from pyarrow import fs

from pipelines.errors import BadItem
from pipelines.files import resolve_filesystem
from pipelines.video.decoder import VideoDecoder, Window
from pipelines.video.defaults import LENGTH
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit

_BUFFER = 2**26  # bytes of frames that are decoded at a time


class TimedFrame(NamedTuple):
    """A frame, upright with square pixels, its name, and when it is shown, in seconds."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    time: float


class FramesByName:
    """Reads frames of one video by name, in as many calls as wanted, each going on behind the one before.

    Use it in a `with` block: the decoder answers nobody else until then.

    Raises:
        BadItem: the video is gone or unreadable.
    """

    def __init__(self, decoder: VideoDecoder, video: Video) -> None:
        self._decoder, self._video = decoder, video
        self._timeline = decoder.timeline(video)
        keys = self._timeline.keys
        self._places = (
            {PurePosixPath(key).stem: at for at, key in enumerate(keys)}
            if isinstance(keys, tuple) and not self._timeline.numbered
            else {}
        )
        # A video that can only be read from its start is read once, not from there for every call.
        self._running = self._decoded(range(len(keys))) if self._timeline.counted else None

    def __enter__(self) -> "FramesByName":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.close()

    def read(self, names: Sequence[str]) -> Iterator[TimedFrame]:
        """Those of the frames that can be decoded; names rise, as the frames of predictions do.

        Raises:
            BadItem: the video has no such frame, not one of them can be decoded, or it took too long.
        """
        wanted = {self._place(name): name for name in names}
        last = max(wanted, default=-1)
        for place, again in self._running or self._decoded(sorted(wanted)):
            if place in wanted:
                yield again._replace(name=wanted[place])
            if self._running is not None and place >= last:
                break

    def _place(self, name: str) -> int:
        place = self._places.get(name, -1) if self._places else int(name) if name.isdecimal() else -1
        if not 0 <= place < len(self._timeline.times):
            raise BadItem(self._video.path, "overlay", f"it has no frame {name}: it changed since it was predicted")
        return place

    def _decoded(self, places: Sequence[int]) -> Generator[tuple[int, TimedFrame], None, None]:
        for window in self._decoder.windows(self._segment(places)):
            yield from _frames(window)

    def _segment(self, places: Sequence[int]) -> DecodeUnit:
        """These frames as a unit of decoding, in windows that fit the buffer."""
        info, keys = self._timeline.info, self._timeline.keys
        n = len(places)
        each = min(LENGTH, max(1, _BUFFER // (3 * info.shown_height * info.shown_width)))
        return DecodeUnit(
            video=self._video,
            info=info,
            number=0,
            first_window=0,
            keys=tuple(keys[at] for at in places) if isinstance(keys, tuple) else keys[list(places)],
            times=self._timeline.times[list(places)],
            indices=np.asarray(places),
            windows=tuple((first, min(first + each, n), 0) for first in range(0, n, each)),
            counted=self._timeline.counted,
            seek=places[0] > 0,
        )


def _frames(window: Window) -> Iterator[tuple[int, TimedFrame]]:
    for index, name, image, time in zip(
        window.indices.tolist(), window.names, window.frames, window.timestamps.tolist(), strict=True
    ):
        yield index, TimedFrame(name, image, time)


def video_of_prediction(path: str) -> Video:
    """The video that a prediction's `source` names; a folder holds images.

    Raises:
        BadItem: it cannot be looked for.
    """
    try:
        filesystem, inside = resolve_filesystem(path)
        return Video(path, images=filesystem.get_file_info(inside).type == fs.FileType.Directory)
    except (OSError, ValueError) as error:
        raise BadItem(path, "read", f"it cannot be found again ({error})") from error
