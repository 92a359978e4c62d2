"""From what every query says in each window to one track a sentence, which follows one object through all of a video.

Windows overlap. The query of a window is chosen by its score and by how well its masks agree, on the frames that both
windows hold, with those chosen before: an object keeps its identity where another one comes to look likelier.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.predictions import Prediction, QueryTrack, Status
from sgmg.masks import Size, mask_to_rle, rle_area, rle_shared_areas

SEGMENT_FRAMES = 1000
"""Frames of a row of predictions, at most."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How windows become tracks.

    Attributes:
        min_score: of a frame, below which its mask is empty.
        independent: windows choose by score alone.
        fingerprint: of checkpoint and settings, for the rows.
    """

    min_score: float
    independent: bool
    fingerprint: str


def join_windows(
    windows: Iterable[Sequence[Prediction]], rules: JoinSettings, note: str = "", length: int = SEGMENT_FRAMES
) -> Iterator[list[Prediction]]:
    """The tracks of a video, in segments of `length` frames, the last one shorter: a row a sentence each.

    Never holds more than a segment and a window.

    Args:
        windows: in order, each with the same sentences in the same order, and all their queries.
        rules: for all of them.
        note: what is missing of the video as a whole; in the last row, which it makes partial.
    """
    tracks: list[_Track] = []
    number = 0
    for window in windows:
        tracks = tracks or [_Track(rules, length) for _ in window]
        for track, found in zip(tracks, window, strict=True):
            track.add(found)
        while len(tracks[0].names) > length:  # one frame at least is left for the last row, which says the most
            yield [track.segment(number) for track in tracks]
            number += 1
    if tracks:
        yield [track.segment(number, last=True, note=note) for track in tracks]


def best_query(window: Prediction, before: Mapping[str, str]) -> int:
    """The query of a window that goes on.

    Args:
        window: what all queries say.
        before: by frame name, the masks chosen in the window before; empty ones say nothing.
    """
    scores = np.array([np.mean(query.scores) for query in window.queries])
    return int(np.argmax(scores + agreement(window, before)))


def agreement(window: Prediction, before: Mapping[str, str]) -> np.ndarray:
    """Each query's IoU with the masks before, averaged over the frames where those show something; else zeros."""
    size = (window.height, window.width)
    overlaps = []
    for place, name in enumerate(window.frame_names):
        known = before.get(name)
        if known is None or not (area := rle_area(known, size)):
            continue
        rles = [query.rle[place] for query in window.queries]
        shared = rle_shared_areas(rles, known, size)
        overlaps.append(shared / (area + np.array([rle_area(rle, size) for rle in rles]) - shared))
    return np.mean(overlaps, axis=0) if overlaps else np.zeros(len(window.queries))


@dataclass(slots=True)
class _Track:
    """One sentence's track as it grows: the frames that were not written yet, and what the last window showed."""

    rules: JoinSettings
    length: int
    names: list[str] = field(default_factory=list)
    rles: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    damage: list[tuple[int, str]] = field(default_factory=list)  # from which frame of the video on, and what
    before: dict[str, str] = field(default_factory=dict)
    written: int = 0
    seen: bool = False
    best: float = 0.0
    sample: Prediction | None = None
    empty: str = ""

    def add(self, window: Prediction) -> None:
        """Chooses the query of the next window, and takes its frames that the window before had not."""
        if self.sample is None:
            self.empty = _empty((window.height, window.width))
        self.sample = window
        query = window.queries[best_query(window, {} if self.rules.independent else self.before)]
        known, self.before = self.before, {}
        if window.note:
            self.damage.append((self.written + len(self.names), window.note))
        for place, (name, score) in enumerate(zip(window.frame_names, query.scores, strict=True)):
            shown = score >= self.rules.min_score and query.rle[place] != self.empty
            if name not in known:
                self.names.append(name)
                self.rles.append(query.rle[place] if shown else self.empty)
                self.boxes.append(query.boxes[place] if shown else (0.0, 0.0, 0.0, 0.0))
                self.scores.append(score)
                self.times.append((window.timestamps or ())[place])
                self.seen |= shown
                self.best = max(self.best, score)
            self.before[name] = known.get(name) or (query.rle[place] if shown else self.empty)

    def segment(self, number: int, *, last: bool = False, note: str = "") -> Prediction:
        """The next row; its frames are forgotten."""
        assert self.sample
        count = len(self.names) if last else self.length
        notes = [text for first, text in self.damage if last or first < self.written + count]
        self.damage = [] if last else self.damage[len(notes) :]
        notes += [note] if note else []
        rle, scores = tuple(self.rles[:count]), tuple(self.scores[:count])
        status: Status = "partial" if notes else "absent" if set(rle) == {self.empty} else "ok"
        if last and not self.seen:
            notes.append(self._absent())
        row = replace(
            self.sample,
            frame_names=tuple(self.names[:count]),
            queries=(QueryTrack(rle, tuple(self.boxes[:count]), scores),),
            score=float(np.mean(scores)),
            fingerprint=self.rules.fingerprint,
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

    def _absent(self) -> str:
        if self.best < self.rules.min_score:
            return f"not in this video: no frame scores {self.rules.min_score:g} or more, the best {self.best:.2f}"
        return f"not in this video: all masks are empty, though a frame scores {self.best:.2f}"


def _empty(size: Size) -> str:
    return mask_to_rle(np.zeros(size, dtype=np.bool_))
