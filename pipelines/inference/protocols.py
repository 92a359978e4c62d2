"""The inference protocol of each benchmark, as in its published evaluation (spec model.md §8)."""

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipelines.clips.sampling import _check_anchor
from pipelines.records import Record
from pipelines.sources.names import TOOL_FORMATS

Keep = Literal["chosen", "all", "ranked"]
"""Queries whose masks are kept: the chosen one, all in query order, or all by falling score."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: which frames are encoded together, and which expressions are segmented in them.

    Attributes:
        frames: indices in the record.
        expressions: indices in the record.
        place: index in `frames` of the only frame that is segmented; None segments all.
    """

    frames: tuple[int, ...]
    expressions: tuple[int, ...]
    place: int | None = None


@dataclass(frozen=True, slots=True)
class InferenceProtocol:
    """Rules of how the model is run on one benchmark.

    Attributes:
        short_side, long_side: pixels that frames are resized to, by rule R(short_side, long_side).
        multiple: sides are padded to a multiple of this.
        keep: which queries are kept.
        window: frames encoded at once, each window choosing its own query; None encodes all frames of a video.
        context: if single frames are segmented, frames around each that the backbone sees; None segments whole videos.
        merge: whether the objects of one annotator compete for the pixels (DAVIS).
        causal: whether the context is the frame itself and those before it, fewer at the start; else those around it.
    """

    long_side: int | None = None
    multiple: int = 16
    keep: Keep = "chosen"
    window: int | None = None
    context: int | None = None
    merge: bool = False
    short_side: int = 360
    causal: bool = False

    def __post_init__(self) -> None:
        """Raises:
        ValueError: a size or length is below 1, or a causal protocol has no context.
        """
        for name in ("short_side", "long_side", "window", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.causal and self.context is None:
            raise ValueError("causal=True needs a context: the number of frames that an answer is made from.")

    def provenance(self) -> dict[str, Any]:
        """Returns the rules as plain values, for config.json and the fingerprint."""
        values = asdict(self)
        if not self.causal:  # folders that were predicted before it existed go on
            del values["causal"]
        return values

    def passes(self, record: Record) -> list[Pass]:
        """Returns the forward passes of a record, in order; none if it has no expression."""
        if not record.expressions:
            return []
        t = len(record.frame_names)
        if self.context is None:
            length, everyone = self.window or t, tuple(range(len(record.expressions)))
            return [Pass(tuple(range(start, min(start + length, t))), everyone) for start in range(0, t, length)]
        by_frame: defaultdict[int, list[int]] = defaultdict(list)
        for number, expression in enumerate(record.expressions):
            for frame in range(t) if expression.frames is None else sorted(expression.frames):
                by_frame[frame].append(number)
        length = self.context
        windows = {
            frame: causal_window(frame, length) if self.causal else evaluation_window(frame, t, length)
            for frame in sorted(by_frame)
        }
        return [Pass(tuple(frames), tuple(by_frame[frame]), place) for frame, (frames, place) in windows.items()]


VIDEO = InferenceProtocol()
"""Every frame in one pass, one query for each video: Ref-YouTube-VOS, and datasets that are no benchmark."""

_FRAME = InferenceProtocol(long_side=640, multiple=32, keep="all", context=5)
_IMAGE = InferenceProtocol(long_side=640, multiple=32, keep="ranked")

PROTOCOLS: dict[str, InferenceProtocol] = {
    "ref-youtube-vos": VIDEO,
    **dict.fromkeys(("mevis", "mevis-v2", "long-rvos", "revos", "ref-sav", "vots"), VIDEO),
    "own": VIDEO,
    **dict.fromkeys(TOOL_FORMATS, VIDEO),
    "synthetic": VIDEO,
    "ref-davis17": replace(VIDEO, window=36, merge=True),
    "a2d-sentences": _FRAME,
    "jhmdb-sentences": _FRAME,
    "refcoco": _IMAGE,
    "refcoco+": _IMAGE,
    "refcocog": _IMAGE,
}
"""The protocol of each dataset, by the name in its records."""


def inference_protocol(dataset: str, short_side: int | None = None, window: int | None = None) -> InferenceProtocol:
    """Returns the protocol of a dataset, with the values that are given instead of the published ones.

    Args:
        dataset: name in the records.
        short_side: pixels; small models are trained and run on smaller frames than published.
        window: frames encoded at once.

    Raises:
        ValueError: the dataset is unknown, or a number is below 1.
    """
    if dataset not in PROTOCOLS:
        raise ValueError(f"There is no protocol for dataset {dataset!r}. Choose one of {', '.join(PROTOCOLS)}.")
    published = PROTOCOLS[dataset]
    return replace(published, short_side=short_side or published.short_side, window=window or published.window)


def causal_window(frame: int, length: int) -> tuple[tuple[int, ...], int]:
    """Returns a frame and those before it, `length` frames at most, and the index of the frame among them.

    >>> causal_window(1, 3), causal_window(5, 3)
    (((0, 1), 1), ((3, 4, 5), 2))
    """
    frames = tuple(range(max(0, frame - length + 1), frame + 1))
    return frames, len(frames) - 1


def evaluation_window(anchor: int, frames: int, length: int) -> tuple[tuple[int, ...], int]:
    """Returns the clip around an annotated frame (A2D, JHMDB), and the index of that frame in the clip.

    Parity: the first and last frame are repeated beyond the ends of the video, and the index is that of the first copy.

    >>> evaluation_window(1, 9, 5)
    ((0, 0, 1, 2, 3), 2)
    >>> evaluation_window(0, 9, 5)
    ((0, 0, 0, 1, 2), 0)

    Raises:
        ValueError: the anchor is outside the video, or the length is below 1.
    """
    _check_anchor(anchor, frames)
    if length < 1:
        raise ValueError(f"length must be 1 or more (got {length}).")
    start = anchor - length // 2
    clip = tuple(min(max(frame, 0), frames - 1) for frame in range(start, start + length))
    return clip, clip.index(anchor)
