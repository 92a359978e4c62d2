"""Encoding of several clips in one forward pass, where that changes no number."""

import logging
from collections.abc import Sequence

import torch

from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.predictor import Predictor
from pipelines.inference.segment_clip import EncodedClip
from sgmg.batch import VideoFeatures

MOST_TOGETHER = 4
"""Clips that share a forward pass, at most."""
SMALL_FRAMES = 8
"""Frames of a clip, at most, that may share one: longer clips fill the device alone."""

Kind = tuple[int, ...]
"""Shape of the frames of a clip, and the number of clips."""

_log = logging.getLogger(__name__)


class SharedForward:
    """Encodes small clips of one size together, if a trial on this device gave the very same numbers as each alone.

    Matrix products may be cut up in another way for more rows, and then round differently. Whether they are depends on
    device, size and number of clips, so the first clips of each kind are computed both ways and compared bit by bit.

    Args:
        predictor: whose model encodes.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._exact: dict[Kind, bool] = {}

    def fits(self, first: ModelFrames, other: ModelFrames) -> bool:
        """Returns whether a clip may share the forward pass of another."""
        shape = first.frames.shape
        return other.frames.shape == shape and shape[0] <= SMALL_FRAMES and self._exact.get((*shape, 2), True)

    def encode(self, clips: Sequence[ModelFrames]) -> list[EncodedClip]:
        """Encodes clips of one shape: together where that is exact, else one after another.

        Raises:
            torch.OutOfMemoryError: the memory of the GPU is full.
        """
        kind = (*clips[0].frames.shape, len(clips))
        exact = self._exact.get(kind)
        if len(clips) == 1 or exact is False:
            return self._apart(clips)
        together = self._predictor.encode(clips)
        if exact:
            return together
        apart = self._apart(clips)
        self._exact[kind] = all(_equal(one.video, other.video) for one, other in zip(together, apart, strict=True))
        _log.info("%d clips of %s together: %s", len(clips), kind[:3], "exact" if self._exact[kind] else "not exact")
        return apart

    def _apart(self, clips: Sequence[ModelFrames]) -> list[EncodedClip]:
        return [clip for one in clips for clip in self._predictor.encode([one])]


def _equal(one: VideoFeatures, other: VideoFeatures) -> bool:
    pairs = zip((*one.levels, *one.details), (*other.levels, *other.details), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)
