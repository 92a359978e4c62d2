"""Scores of mask tracks over video frames: region similarity J and contour accuracy F (spec data 5).

A track is one object over t frames. Tracks are scored separately, possibly by several workers, into small
`TrackScores`, which `total_scores` averages. Scores of images and COCO: `sgmg.referring`; of DAVIS: `sgmg.davis`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

from sgmg.masks import dilate_disk, mask_boundary

TOLERANCE = 0.008
"""Distance up to which contour pixels match in F, as a share of the frame's diagonal."""


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """Statistics of the values of a track's frames."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter minus mean of the last


@dataclass(frozen=True, slots=True)
class TrackScores:
    """J and F of one track, and the ids of the compared objects in the index maps (1 for binary masks)."""

    name: str
    j: FrameStatistics
    f: FrameStatistics
    result_id: int = 1
    truth_id: int = 1


@dataclass(frozen=True, slots=True)
class TotalScores:
    """Mean J and F over the tracks of a benchmark."""

    tracks: int
    j: FrameStatistics
    f: FrameStatistics

    @property
    def jf_mean(self) -> float:
        """J&F, the main score of papers: the mean of J and F."""
        return (self.j.mean + self.f.mean) / 2


def region_similarity(
    results: Bool[np.ndarray, "t h w"], truths: Bool[np.ndarray, "..."], void: Bool[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, " t"]:
    """Computes J of every frame: intersection over union of the pixels that are not void; 1 if both masks are empty.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: masks have different shapes.
    """
    results, truths = _without_void(results, truths, void)
    return np.array([_jaccard(result, truth) for result, truth in zip(results, truths, strict=True)])


def contour_accuracy(
    results: Bool[np.ndarray, "t h w"], truths: Bool[np.ndarray, "..."], void: Bool[np.ndarray, "..."] | None = None
) -> Float[np.ndarray, " t"]:
    """Computes the contour F-measure of every frame; void pixels are background in both masks.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: masks have different shapes.
    """
    results, truths = _without_void(results, truths, void)
    return np.array([outline(r).f_measure(outline(g)) for r, g in zip(results, truths, strict=True)])


def frame_statistics(values: Float[np.ndarray, " t"]) -> FrameStatistics:
    """Computes mean, recall and decay over frames. NaN are left out of means and count as not recalled.

    >>> frame_statistics(np.array([1.0, 1.0, 0.6, 0.5, 0.0]))
    FrameStatistics(mean=0.62, recall=0.6, decay=0.75)

    Raises:
        ValueError: there are no frames.
    """
    if not values.size:
        raise ValueError("A track of 0 frames has no scores. Leave it out, or check that its frames were read.")
    values = values.astype(np.float64)
    # The published code keeps these in 8 bits, so its decay is wrong beyond 256 frames; ours is not.
    ends = np.rint(np.linspace(1, values.size, 5) + 1e-10).astype(np.int64) - 1
    first, last = values[ends[0] : ends[1] + 1], values[ends[3] : ends[4] + 1]
    return FrameStatistics(
        mean=float(np.nanmean(values)),
        recall=float(np.mean(values > 0.5)),
        decay=float(np.nanmean(first) - np.nanmean(last)),
    )


def score_track(
    name: str,
    results: Bool[np.ndarray, "t h w"],
    truths: Bool[np.ndarray, "..."],
    void: Bool[np.ndarray, "..."] | None = None,
) -> TrackScores:
    """Computes J and F of one track, for instance of one expression of Ref-YouTube-VOS.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: masks have different shapes, or there are no frames.
    """
    j, f = region_similarity(results, truths, void), contour_accuracy(results, truths, void)
    return TrackScores(name, frame_statistics(j), frame_statistics(f))


def total_scores(tracks: Iterable[TrackScores]) -> TotalScores:
    """Averages the scores of all tracks, given in any order.

    Raises:
        ValueError: there are no tracks.
    """
    rows = np.array([(_triple(track.j), _triple(track.f)) for track in tracks])
    if not rows.size:
        raise ValueError("There are no tracks to average. Check that results and truth name the same videos.")
    j, f = np.nanmean(rows, axis=0).tolist()
    return TotalScores(len(rows), FrameStatistics(*j), FrameStatistics(*f))


@dataclass(frozen=True, slots=True)
class Outline:
    """Boundary of a mask and the pixels near it, cropped to the window of the frame that contains both."""

    top: int
    left: int
    boundary: Bool[np.ndarray, "y x"]
    near: Bool[np.ndarray, "y x"]
    length: int  # pixels of the boundary

    def f_measure(self, truth: "Outline") -> float:
        """Computes F of this outline against the true one of the same frame."""
        if not self.length or not truth.length:
            return float(self.length == truth.length)
        precision, recall = self._share_near(truth), truth._share_near(self)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def _share_near(self, other: "Outline") -> float:
        top, left = max(self.top, other.top), max(self.left, other.left)
        boundary = self.boundary[top - self.top :, left - self.left :]
        near = other.near[top - other.top :, left - other.left :]
        height, width = np.minimum(boundary.shape, near.shape)
        return np.count_nonzero(boundary[:height, :width] & near[:height, :width]) / self.length


def outline(mask: Bool[np.ndarray, "h w"]) -> Outline:
    """Computes the outline of a mask, in a window around the object for speed."""
    radius = math.ceil(TOLERANCE * math.hypot(*mask.shape))
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    # One more than the radius: a boundary pixel may lie just above or left of the object.
    first_row, first_column = max(top - radius - 1, 0), max(left - radius - 1, 0)
    window = mask[first_row : top + height + radius + 1, first_column : left + width + radius + 1]
    boundary = mask_boundary(window)
    return Outline(first_row, first_column, boundary, dilate_disk(boundary, radius), int(np.count_nonzero(boundary)))


def _jaccard(result: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    union = np.count_nonzero(result | truth)
    return np.count_nonzero(result & truth) / union if union else 1.0


def _triple(statistics: FrameStatistics) -> tuple[float, float, float]:
    return statistics.mean, statistics.recall, statistics.decay


def _without_void(
    results: np.ndarray, truths: np.ndarray, void: np.ndarray | None
) -> tuple[Bool[np.ndarray, "t h w"], Bool[np.ndarray, "t h w"]]:
    for name, masks in (("Results", results), ("Truths", truths), ("Void masks", void)):
        if masks is None:
            continue
        if masks.dtype != np.bool_:
            raise TypeError(f"{name} are boolean here, not {masks.dtype}. Say what is object, as in `masks > 0`.")
        if masks.ndim != 3 or masks.shape != results.shape:
            raise ValueError(
                f"{name} have shape {masks.shape} and results {results.shape}; all are t, h, w and the same. "
                f"Bring results to the size and frames of the truth."
            )
    return (results, truths) if void is None else (results & ~void, truths & ~void)
