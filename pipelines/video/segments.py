"""Division of a video: the frames to use, their windows, and the windows that make a unit of work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from pipelines.video.defaults import LENGTH, OVERLAP
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline, VideoInfo

GRACE = 0.001
"""Seconds by which a frame may be early: Matroska rounds times to a millisecond."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodeUnit:
    """Consecutive windows of one video: a unit of work, planned once and decoded on any worker with the same result.

    Args:
        number: index of the segment in its video.
        first_window: number of its first window.
        keys, times, indices: of its frames, in order.
        windows: index of the first frame, index after the last frame, and shot of each window.
        seek: whether frames come before it: decoding then begins at the nearest key frame.
        note: what is wrong with the file as a whole; in the last segment only.
        shared: number of its first frames that the segment before has too.
    """

    video: Video
    info: VideoInfo
    number: int
    first_window: int
    keys: Int[np.ndarray, " n"] | tuple[str, ...]
    times: Float[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    windows: tuple[tuple[int, int, int], ...]
    index_keys: bool = False
    seek: bool = False
    note: str = ""
    shared: int = 0


def segments(
    video: Video,
    timeline: Timeline,
    *,
    fps: float | None = None,
    length: int = LENGTH,
    overlap: int = OVERLAP,
    start: float | None = None,
    stop: float | None = None,
    windows_each: int | None = None,
) -> tuple[DecodeUnit, ...]:
    """Divides a video into windows, and these into units of work that different workers may decode.

    Windows of a shot overlap, also across segments; no window crosses a cut. The last window of a shot may be shorter.

    Args:
        fps: keeps the first frame of every 1/fps seconds from time 0; no frame is repeated. None keeps every frame, and
            so it is with images whose times are not known, which is remarked.
        length: frames per window.
        overlap: frames that a window shares with the previous one.
        start, stop: seconds; keeps frames shown from `start` to before `stop`.
        windows_each: windows per segment; None makes one segment. A video that can only be read from its start (AVI,
            see `Timeline.index_keys`) is always one segment.

    Raises:
        ValueError: the arguments do not fit together, or no frame lies in that time.
    """
    if length < 1 or not 0 <= overlap < length or (windows_each is not None and windows_each < 1):
        raise ValueError(
            f"length={length}, overlap={overlap} and windows_each={windows_each} do not fit together. "
            f"Give length and windows_each of at least 1, and an overlap from 0 to length - 1."
        )
    if fps is not None and timeline.untimed:
        remark = f"nothing tells when these images were taken: all are used, not {fps:g} a second (give --image-fps)"
        remarks = "; ".join(filter(None, (timeline.info.remark, remark)))
        timeline, fps = replace(timeline, info=replace(timeline.info, remark=remarks)), None
    places = _sampled(timeline, fps, start, stop)
    if not len(places):
        shown = f"{timeline.times[0]:g} to {timeline.times[-1]:g} s"
        raise ValueError(f"{video.path} has no frame from {start} to {stop} s. Its frames are shown from {shown}.")
    spans = list(_spans(places, timeline.cuts, length, overlap))
    each = len(spans) if windows_each is None or timeline.index_keys else windows_each
    groups = [spans[first : first + each] for first in range(0, len(spans), each)]
    return tuple(
        replace(
            _segment(video, timeline, places, number, number * each, group, last=number == len(groups) - 1),
            shared=max(0, groups[number - 1][-1][1] - group[0][0]) if number else 0,
        )
        for number, group in enumerate(groups)
    )


def with_cuts(unit: DecodeUnit, cuts: Sequence[int], length: int, overlap: int) -> DecodeUnit:
    """Returns a unit that is a whole video with windows that cross no cut.

    Args:
        unit: of frames that have keys in ascending order.
        cuts: keys of frames that begin a new shot, selected or not.
        length, overlap: as in `segments`.
    """
    if isinstance(unit.keys, tuple):
        return unit
    return replace(unit, windows=tuple(_spans(unit.keys, cuts, length, overlap)))


def _sampled(timeline: Timeline, fps: float | None, start: float | None, stop: float | None) -> Int[np.ndarray, " n"]:
    """Returns the indices of the selected frames."""
    times = timeline.times
    selected = np.ones(len(times), bool)
    if fps is not None:
        if not fps > 0:
            raise ValueError(f"fps must be above 0 (got {fps}). Leave it out to use every frame.")
        step = np.floor((times + GRACE) * fps)
        selected[1:] = step[1:] > np.maximum.accumulate(step)[:-1]
    if start is not None:
        selected &= times >= start
    if stop is not None:
        selected &= times < stop
    return np.flatnonzero(selected)


def _spans(
    places: Int[np.ndarray, " n"], cuts: Sequence[int], length: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    """Yields the first index, the index after the last, and the shot of every window of selected frames.

    Args:
        places: indices of the frames in the video, or their keys.
        cuts: in the same terms.
        length, overlap: as in `segments`.
    """
    shots = np.searchsorted(np.asarray(cuts, dtype=np.int64), places, side="right")
    edges = [0, *(np.flatnonzero(np.diff(shots)) + 1).tolist(), len(places)]
    for begin, end in pairwise(edges):
        for first in range(begin, max(begin + 1, end - overlap), length - overlap):
            yield first, min(first + length, end), int(shots[begin])


def _segment(
    video: Video,
    timeline: Timeline,
    places: Int[np.ndarray, " n"],
    number: int,
    first_window: int,
    spans: Sequence[tuple[int, int, int]],
    last: bool,
) -> DecodeUnit:
    begin, end = spans[0][0], spans[-1][1]
    selected = places[begin:end]
    keys = timeline.keys
    return DecodeUnit(
        video=video,
        info=timeline.info,
        number=number,
        first_window=first_window,
        keys=tuple(keys[place] for place in selected) if isinstance(keys, tuple) else keys[selected],
        times=timeline.times[selected],
        indices=selected,
        windows=tuple((first - begin, stop - begin, shot) for first, stop, shot in spans),
        index_keys=timeline.index_keys,
        seek=bool(selected[0] > 0),
        note=timeline.note if last else "",
    )
