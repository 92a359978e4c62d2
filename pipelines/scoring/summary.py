"""What a run came to, as plain values for a file, and in one line for people."""

from typing import Any

from pipelines.scoring.distributed import RunScores
from pipelines.scoring.paper import with_paper_figures
from pipelines.scoring.score import figures

SCORES = "scores.json"
"""File of a summary, in the folder of the scores."""


def summary_of(dataset: str, scores: RunScores) -> dict[str, Any]:
    """Figures, the paper's beside them, and what was counted; to be written as JSON."""
    rows = scores.rows
    found = figures(rows)
    return {
        "dataset": dataset,
        "splits": sorted({row.split for row in rows}),
        "videos": len({row.video for row in rows}),
        "rows": len(rows),
        "figures": found,
        "paper": {name: theirs for name, _, *theirs in with_paper_figures(dataset, found) if any(theirs)},
        "withheld": scores.withheld,
        "missing": list(scores.missing),
        "unasked": list(scores.unasked),
    }


def title_of(summary: dict[str, Any]) -> str:
    """What was scored, and what had no part in it."""
    title = f"{summary['dataset']} {', '.join(filter(None, summary['splits']))}: {summary['rows']} scores of "
    title += f"{summary['videos']} videos"
    for key, what in (
        ("missing", "missing, scored as empty"),
        ("unasked", "videos predicted that the truth does not know"),
    ):
        title += f"; {len(summary[key])} {what}" if summary[key] else ""
    return title + (f"; {summary['withheld']} expressions without truth left out" if summary["withheld"] else "")
