"""How each benchmark is run, in one table: what the published evaluation does, as values (spec model.md §8)."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.clips.sampling import _check_anchor
from pipelines.records import Record

Keep = Literal["chosen", "all", "ranked"]
"""Queries whose masks are kept: the chosen one, all in query order, or all by falling score."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What the model is shown at once, and asked about it; numbers count the frames and expressions of a record."""

    frames: tuple[int, ...]
    expressions: tuple[int, ...]
    place: int | None = None  # in `frames`, of the one that is segmented; None: all are


@dataclass(frozen=True, slots=True)
class InferenceProtocol:
    """The behaviour one benchmark is measured with.

    Attributes:
        short_side, long_side: pixels frames are resized to, rule R(short_side, long_side).
        multiple: sides are padded to a multiple of it.
        keep: which queries.
        window: frames encoded at once, each window choosing its own query; None: all frames of a video.
        context: where single frames are asked, how many round each the backbone sees; None: whole videos are asked.
        merge: objects of one annotator compete for the pixels (DAVIS).
        images: results of a row group share a file, as those of single images are small.
    """

    long_side: int | None = None
    multiple: int = 16
    keep: Keep = "chosen"
    window: int | None = None
    context: int | None = None
    merge: bool = False
    images: bool = False
    short_side: int = 360

    def __post_init__(self) -> None:
        """Raises:
        ValueError: a size or length is below 1.
        """
        for name in ("short_side", "long_side", "window", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")

    def passes(self, record: Record) -> list[Pass]:
        """Everything the model is asked of a record, in order; nothing where it has no expression."""
        if not record.expressions:
            return []
        t = len(record.frame_names)
        if self.context is None:
            length, everyone = self.window or t, tuple(range(len(record.expressions)))
            return [Pass(tuple(range(start, min(start + length, t))), everyone) for start in range(0, t, length)]
        asked: defaultdict[int, list[int]] = defaultdict(list)
        for number, expression in enumerate(record.expressions):
            for frame in range(t) if expression.frames is None else sorted(expression.frames):
                asked[frame].append(number)
        windows = {frame: evaluation_window(frame, t, self.context) for frame in sorted(asked)}
        return [Pass(tuple(frames), tuple(asked[frame]), place) for frame, (frames, place) in windows.items()]


VIDEO = InferenceProtocol()
"""Every frame in one pass, one query a video: Ref-YouTube-VOS, and what has no benchmark of its own."""

_FRAME = InferenceProtocol(long_side=640, multiple=32, keep="all", context=5)
_IMAGE = InferenceProtocol(long_side=640, multiple=32, keep="ranked", images=True)

PROTOCOLS: dict[str, InferenceProtocol] = {
    "ref-youtube-vos": VIDEO,
    "mevis": VIDEO,
    "own": VIDEO,
    "synthetic": VIDEO,
    "ref-davis17": replace(VIDEO, window=36, merge=True),
    "a2d-sentences": _FRAME,
    "jhmdb-sentences": _FRAME,
    "refcoco": _IMAGE,
    "refcoco+": _IMAGE,
    "refcocog": _IMAGE,
}
"""Dataset of the records → how it is run."""


def inference_protocol(dataset: str, short_side: int | None = None, window: int | None = None) -> InferenceProtocol:
    """The protocol of a dataset, or one that differs from it where that is asked for.

    Args:
        dataset: as the records name it.
        short_side: pixels; small models learn from, and are asked about, smaller frames than published.
        window: frames encoded at once.

    Raises:
        ValueError: no such dataset, or a number below 1.
    """
    if dataset not in PROTOCOLS:
        raise ValueError(f"There is no protocol for dataset {dataset!r}. Choose one of {', '.join(PROTOCOLS)}.")
    published = PROTOCOLS[dataset]
    return replace(published, short_side=short_side or published.short_side, window=window or published.window)


def evaluation_window(anchor: int, frames: int, length: int) -> tuple[tuple[int, ...], int]:
    """The clip round an annotated frame (A2D, JHMDB), and the place of that frame in it.

    Parity: before the first and after the last frame stand copies of it, and the place is the first of equals.

    >>> evaluation_window(1, 9, 5)
    ((0, 0, 1, 2, 3), 2)
    >>> evaluation_window(0, 9, 5)
    ((0, 0, 0, 1, 2), 0)

    Raises:
        ValueError: the anchor is not in the video, or the clip has no frame.
    """
    _check_anchor(anchor, frames)
    if length < 1:
        raise ValueError(f"A clip of {length} frames holds nothing. Take at least 1.")
    start = anchor - length // 2
    clip = tuple(min(max(frame, 0), frames - 1) for frame in range(start, start + length))
    return clip, clip.index(anchor)
