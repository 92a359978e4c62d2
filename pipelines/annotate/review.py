"""Table of the answers that a person should look at first, the most doubtful first: review.csv.

Four signs of a bad answer are taken from the rows: a low score; windows that do not agree on their shared frames; a
mask that comes and goes; an area that jumps from one frame to the next.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import ray
from jaxtyping import Bool, Float

from pipelines.annotate.verdict_names import Verdict
from pipelines.annotate.verdicts import read_verdicts
from pipelines.files import Folder, parent_and_name
from pipelines.ledger import Entry, Ledger, Rows
from pipelines.prediction_reader import read_segments
from pipelines.predictions import Prediction
from sgmg.masks import rle_area

COLUMNS = (
    "rank", "doubt", "video", "expression", "text", "source", "score", "agreement", "flicker", "jumps", "frame", "time",
    "why", "verdict",
)  # fmt: skip
"""Columns of review.csv; `verdict` is for the person to fill in (`pipelines.annotate.verdicts`)."""
_VIDEOS = 64
"""Videos of a task."""
SHORT = 3
"""Frames of a run of masks, or of a gap between two, at which it flickers."""
JUMP = 2.0
"""Ratio of the areas of two neighbouring frames from which on an area jumps."""
SURE_SCORE, SURE_AGREEMENT = 0.8, 0.8
"""Score and IoU of windows above which there is no doubt."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """The signs of a bad answer to one expression of one video.

    Attributes:
        score: mean over the frames that have a mask; over all if none has.
        agreement: lowest IoU of a window with the one before, on shared frames; None where windows share none.
        flicker: runs of masks, and gaps between them, of at most `SHORT` frames.
        jumps: neighbouring frames whose areas differ by more than `JUMP` times.
        frame, time: the first frame with such a sign, else the one that scores least; its seconds, if known.
    """

    video: str
    expression: str
    text: str
    source: str
    score: float
    agreement: float | None
    flicker: int
    jumps: int
    frame: str
    time: float | None

    @property
    def reasons(self) -> list[str]:
        """Each sign in a few words; empty if there is none."""
        found = []
        if self.score < SURE_SCORE:
            found.append(f"score {self.score:.2f}")
        if self.agreement is not None and self.agreement < SURE_AGREEMENT:
            found.append(f"windows agree by {self.agreement:.2f}")
        if self.flicker:
            found.append(f"comes and goes {self.flicker} times")
        if self.jumps:
            found.append(f"area jumps {self.jumps} times")
        return found

    @property
    def doubt(self) -> float:
        """Doubt about the answer: 0 if no sign is seen, at most 4, one for each sign."""
        agreement = 1.0 if self.agreement is None else self.agreement
        return (
            max(0.0, SURE_SCORE - self.score) / SURE_SCORE
            + max(0.0, SURE_AGREEMENT - agreement) / SURE_AGREEMENT
            + self.flicker / (self.flicker + 2)
            + self.jumps / (self.jumps + 2)
        )


def doubts_of(out: Folder, rows: Sequence[Rows], entries: Sequence[Entry]) -> list[Doubt]:
    """Returns the signs of every expression of a video. Holds one segment of rows.

    Args:
        out: folder of the run.
        rows: where those of the video are.
        entries: of the video in the ledger.

    Raises:
        ValueError: a file is damaged.
    """
    agreements = {
        id: agreement
        for entry in entries
        for (id, _), agreement in zip(entry.sentences, entry.agreements, strict=False)
        if id not in entry.superseded
    }
    tracks: dict[str, _Signs] = {}
    for segment in read_segments(out, rows):
        for row in segment:
            tracks.setdefault(row.expression, _Signs(row)).add(row)
    return [one.doubt(agreements.get(expression)) for expression, one in tracks.items()]


@dataclass(slots=True)
class _Signs:
    """The scores and areas of one expression so far."""

    row: Prediction
    names: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)

    def add(self, row: Prediction) -> None:
        """Adds the next segment."""
        size = (row.height, row.width)
        query = row.queries[0]
        self.names += row.frame_names
        self.times += row.timestamps or ()
        self.scores += query.scores
        self.areas += (rle_area(rle, size) for rle in query.rle)

    def doubt(self, agreement: float | None) -> Doubt:
        """Returns the signs of the whole track."""
        scores, areas = np.asarray(self.scores), np.asarray(self.areas, np.float64)
        shown = areas > 0
        flickers, jumps = _flickers(shown), _jumps(areas)
        first = min([*flickers, *jumps], default=int(np.where(shown, scores, np.inf).argmin()))
        return Doubt(
            video=self.row.video,
            expression=self.row.expression,
            text=self.row.text,
            source=self.row.source,
            score=float(scores[shown].mean() if shown.any() else scores.mean()),
            agreement=agreement,
            flicker=len(flickers),
            jumps=len(jumps),
            frame=self.names[first],
            time=self.times[first] if first < len(self.times) else None,
        )


def _flickers(shown: Bool[np.ndarray, " t"]) -> list[int]:
    """Returns the first frames of short runs of masks, and of short gaps, but for those at either end."""
    edges = np.flatnonzero(np.diff(shown)) + 1
    return [int(edges[at]) for at in np.flatnonzero(np.diff(edges) <= SHORT)]


def _jumps(areas: Float[np.ndarray, " t"]) -> list[int]:
    """Returns the frames whose area is far from that of the frame before."""
    before, after = areas[:-1], areas[1:]
    both = (before > 0) & (after > 0)
    ratio = np.maximum(before, after) / np.maximum(np.minimum(before, after), 1)
    return [int(at) + 1 for at in np.flatnonzero(both & (ratio > JUMP))]


def write_review(out: Folder, ledger: Ledger, path: str) -> int:
    """Writes review.csv about all answers of a run, read on Ray. Returns how many are doubtful.

    Verdicts that are filled in already in a file of that name are kept.

    Args:
        out: folder of the run.
        ledger: of the results.
        path: of the file, local or a URI.

    Raises:
        ray.exceptions.RayError: a file is damaged, or the cluster is lost.
        OSError: the file cannot be written.
        LayoutError: there is a file of that name, but with something else in it.
    """
    parent, name = parent_and_name(path)
    said = read_verdicts(path) if Folder(parent).has(name) else {}
    task = ray.remote(num_cpus=1, max_retries=-1)(_doubts_of_videos)
    videos = [(rows, ledger.by_video[video]) for video, rows in ledger.rows.items()]
    parts = [videos[first : first + _VIDEOS] for first in range(0, len(videos), _VIDEOS)]
    doubts = list(chain.from_iterable(ray.get([task.remote(out, part) for part in parts])))
    Folder(parent).write(name, review_csv(doubts, said))
    return sum(bool(one.reasons) for one in doubts)


def _doubts_of_videos(out: Folder, videos: Sequence[tuple[Sequence[Rows], Sequence[Entry]]]) -> list[Doubt]:
    return [doubt for rows, entries in videos for doubt in doubts_of(out, rows, entries)]


def by_doubt(doubts: Iterable[Doubt]) -> list[Doubt]:
    """Returns the doubts, the worst first; equal ones by video and expression."""
    return sorted(doubts, key=lambda one: (-one.doubt, one.video, one.expression))


def review_csv(doubts: Iterable[Doubt], said: Mapping[tuple[str, str], Verdict] | None = None) -> bytes:
    """Returns review.csv, the worst answer first.

    Args:
        doubts: about each answer.
        said: verdicts by video and expression, to fill in.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_lines(by_doubt(doubts), said or {}))
    return text.getvalue().encode()


def _lines(doubts: Sequence[Doubt], said: Mapping[tuple[str, str], Verdict]) -> Iterator[list[object]]:
    for rank, one in enumerate(doubts, start=1):
        agreement = "" if one.agreement is None else f"{one.agreement:.3f}"
        time = "" if one.time is None else f"{one.time:.2f}"
        yield [
            rank, f"{one.doubt:.3f}", one.video, one.expression, one.text, one.source, f"{one.score:.3f}", agreement,
            one.flicker, one.jumps, one.frame, time, "; ".join(one.reasons), said.get((one.video, one.expression), ""),
        ]  # fmt: skip
