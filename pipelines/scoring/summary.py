"""The summary of a scored run: plain values for a file, and one line of text."""

from typing import Any

from pipelines.scoring.distributed import RunScores
from pipelines.scoring.paper import with_paper_figures
from pipelines.scoring.score import figures

SCORES = "scores.json"
"""File of a summary, in the folder of the scores."""


def summary_of(dataset: str, scores: RunScores) -> dict[str, Any]:
    """Collects the figures, the paper's figures and the counts, as JSON values."""
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
        "extra_videos": list(scores.extra_videos),
    }


def title_of(summary: dict[str, Any]) -> str:
    """Returns one line that says what was scored and what was left out."""
    title = f"{summary['dataset']} {', '.join(filter(None, summary['splits']))}: {summary['rows']} scores of "
    title += f"{summary['videos']} videos"
    for key, what in (
        ("missing", "missing, scored as empty"),
        ("extra_videos", "videos predicted that the truth does not know"),
    ):
        title += f"; {len(summary[key])} {what}" if summary[key] else ""
    return title + (f"; {summary['withheld']} expressions without truth left out" if summary["withheld"] else "")
