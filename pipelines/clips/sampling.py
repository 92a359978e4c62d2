"""Choice of the frames of a clip (spec data.md §3, "Frames"). Frames count from 0."""

import zlib
from itertools import chain

import numpy as np

_NEAR = 3
"""Largest distance in frames from the anchor to its two neighbours in a clip."""


def clip_rng(seed: int, epoch: int, sample: str) -> np.random.Generator:
    """Returns the random generator of a sample: the same on any worker, and after any retry."""
    return np.random.default_rng([seed, epoch, zlib.crc32(sample.encode())])


def anchors(frames: int, length: int) -> range:
    """Returns the anchor frames of a video for clips of `length` frames: 0, T, 2T, …

    >>> list(anchors(12, 5))
    [0, 5, 10]

    Raises:
        ValueError: the video or the clip has no frames.
    """
    if frames < 1 or length < 1:
        raise ValueError(f"A video of {frames} frames has no clips of {length}: both need at least one frame.")
    return range(0, frames, length)


def training_frames(anchor: int, frames: int, length: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draws the frames of a training clip, sorted: the anchor, two near it, the rest from farther away.

    In a short video frames repeat; if T is more than twice its number of frames, all of them repeat more than once.

    Raises:
        ValueError: the anchor is not in the video, or the clip has 2 frames or none.
    """
    _check_anchor(anchor, frames)
    if length < 1 or length == 2:
        raise ValueError(
            f"A training clip of {length} frames is not defined: the anchor has two frames beside it. "
            f"Take 1 frame, or 3 and more."
        )
    if length == 1:
        return (anchor,)
    before, after = rng.integers(1, _NEAR, size=2, endpoint=True).tolist()
    first = (anchor, max(0, anchor - before), min(frames - 1, anchor + after))
    return tuple(sorted((*first, *_others(first, frames, length - len(first), rng))))


def draw_sentences(most: int, rng: np.random.Generator) -> int:
    """Draws how many sentences a multi-object model is asked of a clip, from one to `most`.

    In a quarter of the clips it is one, so that it does not forget to answer one alone (spec many.md, Training).
    """
    return 1 if rng.random() < 0.25 else int(rng.integers(1, most, endpoint=True))


def _others(first: tuple[int, ...], frames: int, count: int, rng: np.random.Generator) -> list[int]:
    """Draws the remaining frames, from outside the span of the first three if there are enough."""
    # As in the published code: the largest of the three counts as outside, and exactly `count` members are not enough.
    outside = [*range(min(first)), *range(max(first), frames)]
    if len(outside) > count:
        return rng.choice(outside, size=count, replace=False).tolist()
    rounds, rest = divmod(count, frames)
    distinct = rng.choice(frames, size=rest, replace=False).tolist()
    return [*chain.from_iterable(range(frames) for _ in range(rounds)), *distinct]


def _check_anchor(anchor: int, frames: int) -> None:
    if not 0 <= anchor < frames:
        raise ValueError(f"Frame {anchor} is not in a video of {frames} frames, which are 0 … {frames - 1}.")
