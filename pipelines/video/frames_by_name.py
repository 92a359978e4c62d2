"""Second decoding of the frames of predictions, by their names."""

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

_BUFFER = 2**26  # bytes of frames per window


class TimedFrame(NamedTuple):
    """A frame, upright with square pixels, its name, and its time in seconds."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    time: float


class FramesByName:
    """Reads frames of one video by name. Successive calls of `read` must ask for later frames.

    Use it in a `with` block, during which the decoder accepts no other request.

    Raises:
        BadItem: the video does not exist or is unreadable.
    """

    def __init__(self, decoder: VideoDecoder, video: Video) -> None:
        self._decoder, self._video = decoder, video
        self._timeline = decoder.timeline(video)
        keys = self._timeline.keys
        self._places = (
            {PurePosixPath(key).stem: at for at, key in enumerate(keys)}
            if isinstance(keys, tuple) and not self._timeline.named_by_index
            else {}
        )
        # A video that can only be read from its start is read once, not again for every call.
        self._running = self._decoded(range(len(keys))) if self._timeline.index_keys else None

    def __enter__(self) -> "FramesByName":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.close()

    def read(self, names: Sequence[str]) -> Iterator[TimedFrame]:
        """Yields those of the frames that can be decoded. Names must be ascending, as in predictions.

        Raises:
            BadItem: the video lacks one of the frames, none of them can be decoded, or it took too long.
        """
        selected = {self._place(name): name for name in names}
        last = max(selected, default=-1)
        for place, frame in self._running or self._decoded(sorted(selected)):
            if place in selected:
                yield frame._replace(name=selected[place])
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
        """Returns these frames as a unit of decoding, in windows that fit the buffer."""
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
            index_keys=self._timeline.index_keys,
            seek=places[0] > 0,
        )


def _frames(window: Window) -> Iterator[tuple[int, TimedFrame]]:
    for index, name, image, time in zip(
        window.indices.tolist(), window.names, window.frames, window.timestamps.tolist(), strict=True
    ):
        yield index, TimedFrame(name, image, time)


def video_of_prediction(path: str) -> Video:
    """Returns the video at a prediction's `source`; a folder holds images.

    Raises:
        BadItem: the path cannot be looked up.
    """
    try:
        filesystem, inside = resolve_filesystem(path)
        return Video(path, images=filesystem.get_file_info(inside).type == fs.FileType.Directory)
    except (OSError, ValueError) as error:
        raise BadItem(path, "read", f"it cannot be found again ({error})") from error
