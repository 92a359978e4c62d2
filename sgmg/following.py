"""The choice of a query frame by frame, which follows one object. No torch: the join of annotation uses it too."""

from collections import deque

import numpy as np
from jaxtyping import Float

CONTEXT = 8
"""Frames that a causal answer is made from, by default."""
MIN_SCORE = 0.3
"""Score of a frame, by default, below which its object counts as not seen."""


class QueryChooser:
    """Chooses the query of each frame of one object, by the scores of the last frames and the mask of the frame before.

    Args:
        context: frames whose scores count.
    """

    def __init__(self, context: int) -> None:
        self._scores: deque[Float[np.ndarray, " q"]] = deque(maxlen=context)

    def choose(self, scores: Float[np.ndarray, " q"], overlaps: Float[np.ndarray, " q"]) -> int:
        """Returns the query with the highest sum of mean score over the last frames and overlap; the first if equal.

        >>> chooser = QueryChooser(2)
        >>> chooser.choose(np.array([0.9, 0.2]), np.zeros(2))
        0
        >>> chooser.choose(np.array([0.1, 0.9]), np.array([0.6, 0.0]))
        0

        Args:
            scores: probability of each query in the next frame.
            overlaps: IoU of each query's mask with the mask chosen in the frame before; zeros where that is empty.
        """
        self._scores.append(scores)
        return int(np.argmax(np.mean(self._scores, axis=0) + overlaps))
