"""The summary of a scored run: plain values for a file, and one line of text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.manifest import data_title
from pipelines.scoring.breakdown import groups
from pipelines.scoring.distributed import RunScores
from pipelines.scoring.paper import is_official, with_paper_figures
from pipelines.scoring.rows import Row
from pipelines.scoring.score import figures, metric_name

SCORES = "scores.json"
"""File of a summary, in the folder of the scores."""


def summary_of(dataset: str, scores: RunScores) -> dict[str, Any]:
    """Collects the figures, the paper's figures and the counts, as JSON values."""
    rows, splits = scores.rows, sorted({row.split for row in scores.rows})
    found, official = figures(rows), not scores.synthetic and is_official(dataset, splits, rows)
    lines = with_paper_figures(dataset, found, official=official)
    return {
        "dataset": dataset,
        "synthetic": scores.synthetic,
        "official": official,
        "splits": splits,
        "videos": len({row.video for row in rows}),
        "rows": len(rows),
        "figures": found,
        "by_attribute": _by_attribute(rows),
        "paper": {name: theirs for name, _, *theirs in lines if any(theirs)},
        "withheld": scores.withheld,
        "missing": list(scores.missing),
        "extra_videos": list(scores.extra_videos),
    }


def attribute_lines(summary: dict[str, Any]) -> list[str]:
    """Returns a line for each attribute: the mean score, in per cent, and the number of expressions of its groups."""
    return [
        f"by {attribute}: " + "; ".join(f"{name} {100 * score:.1f} ({count})" for name, (score, count) in some.items())
        for attribute, some in summary["by_attribute"].items()
    ]


def _by_attribute(rows: Sequence[Row]) -> dict[str, dict[str, tuple[float, int]]]:
    """Returns the mean score and the number of rows of each group of each attribute."""
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for group in groups(rows):
        score = float(np.mean([rows[place].figure for place in group.places]))
        found.setdefault(group.attribute, {})[group.name] = (score, len(group.places))
    return found


def title_of(summary: dict[str, Any]) -> str:
    """Returns one line that says what was scored and what was left out."""
    name = data_title(summary["dataset"], synthetic=summary["synthetic"])
    title = f"{name} {', '.join(filter(None, summary['splits']))}: {summary['rows']} scores of "
    title += f"{summary['videos']} videos"
    counts = counts_text(summary["missing"], summary["extra_videos"], summary["withheld"])
    return f"{title}; {counts}" if counts else title


def counts_text(missing: Sequence[str], extra_videos: Sequence[str], withheld: int) -> str:
    """Returns the numbers of what was scored as empty and of what was not scored, in words; empty if there is nothing.

    Args:
        missing, extra_videos, withheld: as in `RunScores`.

    >>> counts_text(["video a"], [], 2)
    '1 missing, scored as empty; 2 expressions without truth left out'
    """
    counts = {
        "missing, scored as empty": len(missing),
        "videos predicted that the truth does not know": len(extra_videos),
        "expressions without truth left out": withheld,
    }
    return "; ".join(f"{count} {what}" for what, count in counts.items() if count)


def data_name(dataset: str, *, synthetic: bool) -> str:
    """Returns the name of data in MLflow's metrics, which cannot hold a `data_title`.

    >>> data_name("ref-youtube-vos", synthetic=True), data_name("refcoco+", synthetic=False)
    ('synthetic-ref-youtube-vos', 'refcoco_plus')
    """
    return metric_name(f"synthetic-{dataset}" if synthetic else dataset)
