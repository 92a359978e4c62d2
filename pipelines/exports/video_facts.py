"""Facts of the predicted videos beside their masks: where each is from, its frames, and when they are shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipelines.files import number_order
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.predictions import mean_rate
from pipelines.safety.secrets import redacted_uri
from sgmg.masks import Size

_READ = ("frame_names", "source", "fps", "timestamps")

Names = dict[str, tuple[str, ...]]
"""Frame names of every video, in order."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Facts of one video.

    Attributes:
        number: from 1, in the order of the videos.
        video: id.
        size: height and width.
        start_frame: index, in the video, of the first predicted frame.
        source: path of the video as it was given, without credentials; empty if it was not predicted.
        frame_names: of all its expressions, in order.
        times: seconds, for each frame; None if they are not known.
    """

    number: int
    video: str
    size: Size
    start_frame: int
    source: str
    frame_names: tuple[str, ...]
    times: tuple[float, ...] | None

    @property
    def fps(self) -> float | None:
        """Mean rate of the predicted frames; None if their times are not known, or there is one."""
        rate = None if self.times is None else mean_rate(self.times)
        return None if rate is None else round(rate, 6)


def frames_of_videos(predictions: Predictions) -> Names:
    """Collects the frames of each video: those of all its expressions, which differ in A2D and JHMDB only."""
    frames: Names = {}
    for entry in predictions.entries:
        known = frames.setdefault(entry.video, entry.frame_names)
        if known != entry.frame_names:
            frames[entry.video] = tuple(sorted({*known, *entry.frame_names}, key=number_order))
    return frames


def video_facts(predictions: Predictions, frames: Names) -> Iterator[VideoFacts]:
    """Yields the facts of each video, in the order of `frames`. Reads no masks, and holds one video.

    Times count as known where each frame has one and the rate is known or there is one frame: those of images that
    nothing tells the times of are made up.
    """
    by_video = groupby(predictions.entries, key=lambda one: one.video)
    chosen = [_differing(list(entries)) for _, entries in by_video]
    rows = predictions.read_columns((entry for entries in chosen for entry in entries), _READ)
    for number, entries in enumerate(chosen, start=1):
        first, found = entries[0], [row for _ in entries for row in next(rows)]
        names = frames[first.video]
        yield VideoFacts(
            number=number,
            video=first.video,
            size=first.size,
            start_frame=first.start_frame,
            source=redacted_uri(found[0]["source"]) if found else "",
            frame_names=names,
            times=_times(names, found),
        )


def _differing(entries: list[PredictionEntry]) -> list[PredictionEntry]:
    """Returns a first entry of a video, predicted if any is, and further ones with frames which none before has."""
    chosen: list[PredictionEntry] = []
    seen: set[str] = set()
    for entry in sorted(entries, key=lambda one: not one.rows):
        if chosen and entry.frame_names == chosen[-1].frame_names:
            continue
        if not seen.issuperset(entry.frame_names):
            chosen.append(entry)
            seen.update(entry.frame_names)
    return chosen


def _times(names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    known: dict[str, float] = {}
    for row in rows:
        if row["timestamps"] is not None and (row["fps"] is not None or len(names) == 1):
            known.update(zip(row["frame_names"], row["timestamps"], strict=True))
    return tuple(round(known[name], 6) for name in names) if len(known) == len(names) else None
