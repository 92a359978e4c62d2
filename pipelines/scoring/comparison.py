"""Comparison of runs that were scored by the same truth: sentence by sentence, by video, and by attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from pipelines.scoring.benchmark_figures import KINDS, is_of_reported_kind
from pipelines.scoring.breakdown import groups, is_counted, paired_interval
from pipelines.scoring.distributed import RunScores
from pipelines.scoring.figures import Figures, figures
from pipelines.scoring.rows import PictureRow, Row
from pipelines.scoring.summary import counts_text

COMPARISON = "comparison.json"
"""File of the figures of a comparison, in its folder."""

FEWEST = 5
"""Videos from which on a difference has an interval."""

Interval = tuple[float, float]
"""Bounds of a difference: the 95 % bootstrap interval of `paired_interval`."""


@dataclass(frozen=True, slots=True)
class Line:
    """The mean scores of all runs over some rows, in fractions of 1.

    `intervals` are those of the differences of the second and further runs to the first; there are none of fewer than
    `FEWEST` videos, which would look surer than they are.
    """

    name: str
    rows: int
    videos: int
    scores: tuple[float, ...]
    intervals: tuple[Interval, ...] = ()

    @property
    def differences(self) -> tuple[float, ...]:
        """Scores of the second and further runs less that of the first."""
        return tuple(score - self.scores[0] for score in self.scores[1:])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: of the runs; the others are compared with the first.
        figure: what a row is ranked by: J&F or IoU.
        figures: those of the benchmark, of each run.
        notes: a line for what does not count, and for each run of which something is missing or was not scored.
        rows: of each run, in one order; those that count.
        total: over all rows.
        by_attribute: attribute → its groups.
        videos: by name.
    """

    names: tuple[str, ...]
    figure: str
    figures: tuple[Figures, ...]
    notes: tuple[str, ...]
    rows: tuple[tuple[Row, ...], ...]
    total: Line
    by_attribute: Mapping[str, tuple[Line, ...]]
    videos: tuple[Line, ...]

    @property
    def mean(self) -> str:
        """Name of a mean over rows, which may be another mean than the benchmark's figure."""
        return f"mean {self.figure} of the sentences"

    def disagreements(self, count: int) -> list[tuple[Row, ...]]:
        """Returns the rows, of each run, whose scores differ most, largest difference first."""
        scores = np.array([[row.figure for row in of_run] for of_run in self.rows])
        spread = scores.max(axis=0) - scores.min(axis=0)
        places = [int(place) for place in np.argsort(-spread, kind="stable")[:count] if spread[place] > 0]
        return [tuple(of_run[place] for of_run in self.rows) for place in places]


def compare(runs: Mapping[str, RunScores]) -> Comparison:
    """Compares runs, given by name, that were scored by the same truth.

    Raises:
        ValueError: there are fewer than two runs, they have scores of different expressions, or none that counts.
    """
    if len(runs) < 2:
        raise ValueError(f"There are {len(runs)} runs to compare. Give two or more.")
    ordered = [_ordered(run.rows) for run in runs.values()]
    first, *others = ordered
    for name, rows in zip(list(runs)[1:], others, strict=True):
        if odd := sorted(set(rows) ^ set(first)):
            raise ValueError(
                f"{name} and {next(iter(runs))} have scores of different expressions; the first is {odd[0]}. Score "
                f"both by the same truth."
            )
    uncounted = _uncounted(next(iter(runs.values())).rows)
    if not first:
        raise ValueError(f"{uncounted}. There are no others to compare: give truth that has some.")
    rows = tuple(tuple(one[key] for key in first) for one in ordered)
    head = rows[0]
    named: dict[str, list[int]] = {}
    for place, row in enumerate(head):
        named.setdefault(row.video, []).append(place)
    by_attribute: dict[str, list[Line]] = {}
    for group in groups(head):
        by_attribute.setdefault(group.attribute, []).append(_line(group.name, rows, group.places))
    return Comparison(
        names=tuple(runs),
        figure="IoU" if isinstance(head[0], PictureRow) else "J&F",
        figures=tuple(figures(run.rows) for run in runs.values()),
        notes=tuple(filter(None, [uncounted, *(_note(name, run) for name, run in runs.items())])),
        rows=rows,
        total=_line("all", rows, range(len(head))),
        by_attribute={name: tuple(lines) for name, lines in by_attribute.items()},
        videos=tuple(_line(video, rows, places) for video, places in sorted(named.items())),
    )


def table_of(comparison: Comparison) -> list[dict[str, Any]]:
    """Returns one line per row for a spreadsheet: what it is, its attributes, each run's score, the differences."""
    lines = []
    for some in zip(*comparison.rows, strict=True):
        first = some[0]
        frame = first.frame if isinstance(first, PictureRow) else ""
        line: dict[str, Any] = {"video": first.video, "expression": first.expression, "frame": frame}
        line |= {"text": first.text, **(asdict(first.attributes) if first.attributes else {})}
        line |= {f"{comparison.figure} {name}": row.figure for name, row in zip(comparison.names, some, strict=True)}
        line |= {
            f"{name} over {comparison.names[0]}": row.figure - first.figure
            for name, row in zip(comparison.names[1:], some[1:], strict=True)
        }
        lines.append(line)
    return lines


def _line(name: str, rows: Sequence[Sequence[Row]], places: Sequence[int]) -> Line:
    scores = np.array([[of_run[place].figure for place in places] for of_run in rows])
    videos = [rows[0][place].video for place in places]
    several = len(set(videos))
    intervals = tuple(paired_interval(one - scores[0], videos) for one in scores[1:]) if several >= FEWEST else ()
    return Line(name, len(places), several, tuple(scores.mean(axis=1).tolist()), intervals)


def _uncounted(rows: Sequence[Row]) -> str:
    """Returns how many sentences are of none of the kinds that the benchmark reports, in words; empty if none is."""
    count = sum(not is_of_reported_kind(row) for row in rows)
    return f"{count} sentences left out: neither {' nor '.join(KINDS[rows[0].dataset])}" if count else ""


def _note(name: str, run: RunScores) -> str:
    """Returns what of a run is missing or was not scored, in words; empty if there is nothing."""
    counts = counts_text(run.missing, run.extra_videos, run.withheld)
    return f"{name}: {counts}" if counts else ""


Key = tuple[str, str, str]


def _ordered(rows: Sequence[Row]) -> dict[Key, Row]:
    """Returns the rows that count by what they are scores of, sorted."""
    return dict(sorted(((_key(row), row) for row in rows if is_counted(row)), key=itemgetter(0)))


def _key(row: Row) -> Key:
    """Returns video, expression and frame; of DAVIS's objects, whose expression depends on the result, their own id."""
    if isinstance(row, PictureRow):
        return row.video, row.expression, row.frame
    if row.protocol == "unsupervised":
        return row.video, f"object {row.truth_id}", f"annotator {row.annotator or 0}"
    return row.video, row.expression, ""
