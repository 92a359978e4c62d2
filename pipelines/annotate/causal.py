"""Causal annotation: which frames of a window are answered, and the query of each, as `sgmg.streaming` chooses it.

Windows overlap by the frames that the first new one is answered from. These are context only: the window before has
answered them.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from pipelines.annotate.window_rows import WindowRow
from pipelines.predictions import QueryTrack
from pipelines.records import Expression
from pipelines.video.decoder import Window
from sgmg.following import QueryChooser


def with_known_frames(windows: Iterable[Window], shared: Int[np.ndarray, " n"]) -> Iterator[tuple[Window, int]]:
    """Yields each window, and how many of its first frames the window before has too, in the same shot.

    Args:
        windows: of a unit of work, in order.
        shared: indices in the video of the frames that the unit before has too.
    """
    latest, shot = int(shared[-1]) if len(shared) else -1, None
    for window in windows:
        same_shot = shot is None or window.shot == shot
        yield window, int(np.searchsorted(window.indices, latest, side="right")) if same_shot else 0
        latest, shot = int(window.indices[-1]), window.shot


def asked_after(expressions: Sequence[Expression], known: int, frames: int) -> tuple[Expression, ...]:
    """Returns expressions that are asked of the frames of a window after the first `known`, and at least of the last.

    The window before has answered the last one then; the join leaves it out, but what is noted of the window counts.
    """
    asked = tuple(range(min(known, frames - 1), frames))
    return tuple(replace(one, frames=asked) for one in expressions)


class TrackFollower:
    """Chooses the query of one expression frame by frame through the windows of a video.

    Args:
        context: frames whose scores count.
        min_score: score of a frame, below which its mask has no influence on the next frame.
    """

    def __init__(self, context: int, min_score: float) -> None:
        self._context, self._min_score = context, min_score
        self._begin()

    def follow(self, window: WindowRow, known: Container[str]) -> tuple[QueryTrack, tuple[str, ...], float | None]:
        """Returns the track through a window, its masks at the size that the model sees, and its lowest agreement.

        That is the IoU of the mask of a frame with the one of the frame before; None if none could be compared.

        Args:
            window: with all queries, at the original size and at that size.
            known: names of frames that the window before has answered, for which any query is returned.
        """
        chosen, agreed = [], []
        for t, name in enumerate(window.row.frame_names):
            query = 0
            if name not in known:
                query, overlap = self._choose(window, t)
                agreed += [] if overlap is None else [overlap]
            chosen.append(query)
        track = QueryTrack(
            rle=tuple(window.row.queries[query].rle[t] for t, query in enumerate(chosen)),
            boxes=tuple(window.row.queries[query].boxes[t] for t, query in enumerate(chosen)),
            scores=tuple(window.row.queries[query].scores[t] for t, query in enumerate(chosen)),
        )
        masks = tuple(window.every[query].rle[t] for t, query in enumerate(chosen))
        return track, masks, min(agreed, default=None)

    def _choose(self, window: WindowRow, t: int) -> tuple[int, float | None]:
        """Returns the query of the next frame, and its IoU with the mask before; None if there is none."""
        names = window.row.frame_names
        if (names[t - 1] if t else window.after) != self._latest:
            self._begin()
        overlaps = window.overlaps(t, self._mask)
        scores = np.array([query.scores[t] for query in window.every])
        query = self._chooser.choose(scores, np.zeros(len(scores)) if overlaps is None else overlaps)
        self._latest = names[t]
        self._mask = window.every[query].rle[t] if scores[query] >= self._min_score else ""
        return query, None if overlaps is None else float(overlaps[query])

    def _begin(self) -> None:
        """Forgets the frames before: a shot begins, or frames are missing."""
        self._latest, self._mask, self._chooser = "", "", QueryChooser(self._context)
