"""Second decoding of the frames of predictions, by their names."""

from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from pyarrow import fs

from pipelines.errors import BadItem
from pipelines.files import resolve_filesystem
from pipelines.video.decoder import VideoDecoder, Window
from pipelines.video.defaults import LENGTH
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline
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
        self._info = decoder.probe(video)
        self._running: Generator[tuple[int, TimedFrame]] | None = None

    @cached_property
    def _timeline(self) -> Timeline:
        """All frames of the video; reads the file to its end."""
        timeline = self._decoder.timeline(self._video)
        if timeline.index_keys:  # such a video can only be read from its start: once, not again for every call
            self._running = self._decoded(range(len(timeline.keys)), timeline)
        return timeline

    @cached_property
    def _places(self) -> dict[str, int]:
        """The places of images by their names; empty if frames are named by their place."""
        keys = self._timeline.keys
        if not isinstance(keys, tuple) or self._timeline.named_by_index:
            return {}
        return {PurePosixPath(key).stem: at for at, key in enumerate(keys)}

    def __enter__(self) -> "FramesByName":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self._running.close()

    def read(self, names: Sequence[str], times: Sequence[float] = ()) -> Iterator[TimedFrame]:
        """Yields those of the frames that can be decoded. Names must be ascending, as in predictions.

        Args:
            names: of the frames.
            times: of the frames, in seconds, as in predictions: a frame is then sought, and the file not listed first.

        Raises:
            BadItem: the video lacks one of the frames, none of them can be decoded, or it took too long.
        """
        found = self._by_time(names, times)
        try:
            first = next(found, None)
        except BadItem:  # not one frame has such a time stamp
            first = None
        if first is None:
            yield from self._by_place(names)
        else:
            yield first
            yield from found

    def _by_time(self, names: Sequence[str], times: Sequence[float]) -> Iterator[TimedFrame]:
        """Yields frames whose time stamps are those of the times; none if the file has other ones."""
        if not times or not self._info.unit:
            return
        unit = Fraction(self._info.unit)
        stamps = np.rint(np.asarray(times) * unit.denominator / unit.numerator).astype(np.int64)
        part = self._part(stamps, np.asarray(times), np.arange(len(names)), seek=True)
        for window in self._decoder.windows(part):
            for place, frame in _frames(window):
                yield frame._replace(name=names[place])

    def _by_place(self, names: Sequence[str]) -> Iterator[TimedFrame]:
        selected = {self._place(name): name for name in names}
        last = max(selected, default=-1)
        for place, frame in self._running or self._decoded(sorted(selected), self._timeline):
            if place in selected:
                yield frame._replace(name=selected[place])
            if self._running is not None and place >= last:
                break

    def _place(self, name: str) -> int:
        place = self._places.get(name, -1) if self._places else int(name) if name.isdecimal() else -1
        if not 0 <= place < len(self._timeline.times):
            raise BadItem(self._video.path, "overlay", f"it has no frame {name}: it changed since it was predicted")
        return place

    def _decoded(self, places: Sequence[int], timeline: Timeline) -> Generator[tuple[int, TimedFrame]]:
        at, keys = list(places), timeline.keys
        chosen = tuple(keys[place] for place in at) if isinstance(keys, tuple) else keys[at]
        part = self._part(chosen, timeline.times[at], np.asarray(at), seek=at[0] > 0, index_keys=timeline.index_keys)
        for window in self._decoder.windows(part):
            yield from _frames(window)

    def _part(
        self,
        keys: Int[np.ndarray, " n"] | tuple[str, ...],
        times: Float[np.ndarray, " n"],
        indices: Int[np.ndarray, " n"],
        *,
        seek: bool,
        index_keys: bool = False,
    ) -> DecodeUnit:
        """Returns these frames as a unit of decoding, in windows that fit the buffer."""
        info, n = self._info, len(times)
        each = min(LENGTH, max(1, _BUFFER // (3 * info.shown_height * info.shown_width)))
        return DecodeUnit(
            video=self._video,
            info=info,
            number=0,
            first_window=0,
            keys=keys,
            times=times,
            indices=indices,
            windows=tuple((first, min(first + each, n), 0) for first in range(0, n, each)),
            index_keys=index_keys,
            seek=seek,
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
