"""Joins the queries of all windows to one track for each expression, which follows one object through the whole video.

Windows overlap. The query of a window is chosen by its score and by how well its masks agree, on the shared frames,
with those of the query chosen in the window before: an object keeps its identity even when another one scores higher.
In causal mode the query is chosen frame by frame instead (`pipelines.annotate.causal`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.annotate.causal import TrackFollower
from pipelines.annotate.window_rows import WindowRow
from pipelines.predictions import Box, Prediction, QueryTrack, Status
from sgmg.masks import Size, mask_to_rle, resize_rles, rle_area

SEGMENT_FRAMES = 1000
"""Most frames of a row of predictions."""


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """Rules of how windows become tracks.

    Attributes:
        min_score: score of a frame, below which its mask is empty.
        fingerprint: of checkpoint and settings, for the rows.
        context: in causal mode, frames whose scores choose the query of a frame; None chooses one for each window.
    """

    min_score: float
    fingerprint: str
    context: int | None = None


def join_windows(
    windows: Iterable[Sequence[WindowRow]],
    settings: JoinSettings,
    note: str = "",
    length: int = SEGMENT_FRAMES,
    agreements: dict[str, float] | None = None,
) -> Iterator[list[Prediction]]:
    """Yields the tracks of a video in segments of `length` frames (the last is shorter), a row for each expression.

    Holds one segment and one window at most.

    Args:
        windows: in order, each with the same expressions in the same order.
        settings: how windows become tracks.
        note: which parts of the video are missing; goes into the last row, which it makes partial.
        length: frames of a segment.
        agreements: takes, by expression, the lowest IoU of a chosen query with the one before; an expression whose
            windows share no mask is not in it. In causal mode, the lowest IoU of a mask with that of the frame before.
    """
    tracks: list[_TrackBuilder] = []
    number = 0
    for window in windows:
        tracks = tracks or [_TrackBuilder(settings, length) for _ in window]
        for track, prediction in zip(tracks, window, strict=True):
            track.add(prediction)
        while len(tracks[0].names) > length:  # the last row has the notes, so it needs at least one frame
            yield [track.segment(number) for track in tracks]
            number += 1
    if tracks:
        yield [track.segment(number, last=True, note=note) for track in tracks]
    if agreements is not None:
        agreements |= {one.sample.expression: one.lowest for one in tracks if one.sample and one.lowest is not None}


def best_query(window: WindowRow, before: Mapping[str, str]) -> int:
    """Returns the index of the query of a window that continues the track.

    Args:
        window: with all queries.
        before: RLE by frame name, the masks chosen in the window before, at the size that the model sees; empty masks
            are ignored.
    """
    scores = np.array([np.mean(query.scores) for query in window.every])
    return int(np.argmax(scores + agreement(window, before)))


def agreement(window: WindowRow, before: Mapping[str, str]) -> np.ndarray:
    """Returns the IoU of each query with the masks before, averaged over the frames where those are not empty.

    Zeros if there is no such frame. Arguments as of `best_query`.
    """
    overlaps = []
    for t, name in enumerate(window.row.frame_names):
        if (of_frame := window.overlaps(t, before.get(name, ""))) is not None:
            overlaps.append(of_frame)
    return np.mean(overlaps, axis=0) if overlaps else np.zeros(len(window.every))


@dataclass(slots=True)
class _TrackBuilder:
    """The growing track of one expression: the frames that are not written yet, and the masks of the last window."""

    settings: JoinSettings
    length: int
    names: list[str] = field(default_factory=list)
    rles: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    damage: list[tuple[int, str]] = field(default_factory=list)  # index of the first frame in the video, and a note
    remarks: list[tuple[int, str]] = field(default_factory=list)  # likewise
    before: dict[str, str] = field(default_factory=dict)
    written: int = 0
    present: bool = False
    best: float = 0.0
    lowest: float | None = None  # IoU of a chosen query with the one before, on shared frames
    sample: Prediction | None = None
    empty: str = ""
    follower: TrackFollower | None = None

    def __post_init__(self) -> None:
        """Makes what follows the object in causal mode."""
        if self.settings.context is not None:
            self.follower = TrackFollower(self.settings.context, self.settings.min_score)

    def add(self, window: WindowRow) -> None:
        """Chooses the query of the next window or its frames, and adds those that the window before did not have."""
        row = window.row
        if self.sample is None:
            self.empty = _empty((row.height, row.width))
        self.sample = row
        follow = self.follower.follow if self.follower else _continued
        query, coarse, agreed = follow(window, self.before)
        if agreed is not None:
            self.lowest = min(agreed, 1.0 if self.lowest is None else self.lowest)
        known, self.before = self.before, {}
        if row.note:
            self.damage.append((self.written + len(self.names), row.note))
        if window.remark:
            self.remarks.append((self.written + len(self.names), window.remark))
        for t, (name, score) in enumerate(zip(row.frame_names, query.scores, strict=True)):
            shown = score >= self.settings.min_score and query.rle[t] != self.empty
            if name not in known:
                self.names.append(name)
                self.rles.append(query.rle[t] if shown else self.empty)
                self.boxes.append(query.boxes[t] if shown else (0.0, 0.0, 0.0, 0.0))
                self.scores.append(score)
                self.times.append((row.timestamps or ())[t])
                self.present |= shown
                self.best = max(self.best, score)
            self.before[name] = known[name] if name in known else coarse[t] if shown else ""

    def segment(self, number: int, *, last: bool = False, note: str = "") -> Prediction:
        """Returns the next row, and drops its frames."""
        assert self.sample
        count = len(self.names) if last else self.length
        notes, self.damage = self._begun(self.damage, last)
        remarks, self.remarks = self._begun(self.remarks, last)
        notes += [note] if note else []
        rle, scores = tuple(self.rles[:count]), tuple(self.scores[:count])
        status: Status = "partial" if notes else "absent" if set(rle) == {self.empty} else "ok"
        notes += remarks
        if last and not self.present:
            notes.append(self._absent())
        row = replace(
            self.sample,
            frame_names=tuple(self.names[:count]),
            queries=(QueryTrack(rle, tuple(self.boxes[:count]), scores),),
            score=float(np.mean(scores)),
            fingerprint=self.settings.fingerprint,
            status=status,
            note="; ".join(dict.fromkeys(notes)),
            segment=number,
            start_frame=self.written,
            timestamps=tuple(self.times[:count]),
        )
        self.written += count
        for column in (self.names, self.rles, self.boxes, self.scores, self.times):
            del column[:count]
        return row

    def _begun(self, notes: list[tuple[int, str]], last: bool) -> tuple[list[str], list[tuple[int, str]]]:
        """Returns the notes of the next row, and those of later ones."""
        mine = [text for first, text in notes if last or first < self.written + self.length]
        return mine, [] if last else notes[len(mine) :]

    def _absent(self) -> str:
        if self.best < self.settings.min_score:
            return f"not in this video: no frame scores {self.settings.min_score:g} or more, the best {self.best:.2f}"
        return f"not in this video: all masks are empty, though a frame scores {self.best:.2f}"


def _continued(window: WindowRow, before: Mapping[str, str]) -> tuple[QueryTrack, tuple[str, ...], float | None]:
    """Returns the query of a window that continues the track, and its masks at the size that the model sees.

    Also returns its IoU with the query before, on shared frames that have a mask; None if there is none.

    The query that scores best is kept at the original size, any other is drawn from its coarse masks.
    """
    (query,) = window.row.queries
    if not window.every:
        return query, ("",) * len(query.rle), None
    chosen = best_query(window, before)
    coarse = window.every[chosen]
    if chosen != window.best:
        size = (window.row.height, window.row.width)
        query = replace(coarse, rle=tuple(resize_rles(coarse.rle, window.size, size)))
    shared = any(before.get(name) and rle_area(before[name], window.size) for name in window.row.frame_names)
    return query, coarse.rle, float(agreement(window, before)[chosen]) if shared else None


def _empty(size: Size) -> str:
    return mask_to_rle(np.zeros(size, dtype=np.bool_))
