"""Which frames of a video are asked for, in which windows, and which windows make a unit of work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from pipelines.video.defaults import LENGTH, OVERLAP
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline, VideoInfo

GRACE = 0.001
"""Seconds that a frame may be early: Matroska rounds times to a millisecond."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodeUnit:
    """Consecutive windows of one video: a unit of work, planned once and decoded anywhere, with the same result.

    Args:
        number: of the segment within its video.
        first_window: number of its first window.
        keys, times, indices: of its frames, one after the other.
        windows: where each window begins and ends among them, and its shot.
        seek: whether frames come before it: decoding then begins at the nearest key frame.
        note: what is wrong with the file as a whole; in the last segment only.
    """

    video: Video
    info: VideoInfo
    number: int
    first_window: int
    keys: Int[np.ndarray, " n"] | tuple[str, ...]
    times: Float[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    windows: tuple[tuple[int, int, int], ...]
    counted: bool = False
    seek: bool = False
    note: str = ""


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
    """Cuts a video into windows, and these into units of work that different workers may decode.

    Windows of a shot overlap, also across segments; none crosses a cut. The last of a shot may be shorter.

    Args:
        fps: of every 1/fps seconds from time 0 the first frame; no frame is repeated. None takes every frame.
        length: frames of a window.
        overlap: frames that a window shares with the one before.
        start, stop: seconds; frames shown from `start` to before `stop`.
        windows_each: windows of a segment; None makes one segment. A video that can only be read from its start (AVI,
            see `Timeline.counted`) is one segment, whatever is asked.

    Raises:
        ValueError: the arguments do not fit one another, or no frame lies in that time.
    """
    if length < 1 or not 0 <= overlap < length or (windows_each is not None and windows_each < 1):
        raise ValueError(
            f"Windows of {length} frames that overlap by {overlap}, {windows_each} a segment, do not get on. "
            f"Let length and windows_each be at least 1, and overlap from 0 to length - 1."
        )
    places = _sampled(timeline, fps, start, stop)
    if not len(places):
        shown = f"{timeline.times[0]:g} to {timeline.times[-1]:g} s"
        raise ValueError(f"{video.path} has no frame from {start} to {stop} s. Its frames are shown from {shown}.")
    spans = list(_spans(places, timeline.cuts, length, overlap))
    each = len(spans) if windows_each is None or timeline.counted else windows_each
    groups = [spans[first : first + each] for first in range(0, len(spans), each)]
    return tuple(
        _segment(video, timeline, places, number, number * each, group, last=number == len(groups) - 1)
        for number, group in enumerate(groups)
    )


def _sampled(timeline: Timeline, fps: float | None, start: float | None, stop: float | None) -> Int[np.ndarray, " n"]:
    """Places of the frames that are asked for."""
    times = timeline.times
    asked = np.ones(len(times), bool)
    if fps is not None:
        if not fps > 0:
            raise ValueError(f"{fps} frames a second are none. Give fps above 0, or none for every frame.")
        step = np.floor((times + GRACE) * fps)
        asked[1:] = step[1:] > np.maximum.accumulate(step)[:-1]
    if start is not None:
        asked &= times >= start
    if stop is not None:
        asked &= times < stop
    return np.flatnonzero(asked)


def _spans(
    places: Int[np.ndarray, " n"], cuts: Sequence[int], length: int, overlap: int
) -> Iterator[tuple[int, int, int]]:
    """Begin and end of every window among the asked frames, and its shot."""
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
    asked = places[begin:end]
    keys = timeline.keys
    return DecodeUnit(
        video=video,
        info=timeline.info,
        number=number,
        first_window=first_window,
        keys=tuple(keys[place] for place in asked) if isinstance(keys, tuple) else keys[asked],
        times=timeline.times[asked],
        indices=asked,
        windows=tuple((first - begin, past - begin, shot) for first, past, shot in spans),
        counted=timeline.counted,
        seek=bool(asked[0] > 0),
        note=timeline.note if last else "",
    )
