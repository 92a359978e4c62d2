"""The paper's figures, and the table of ours beside them."""

from collections.abc import Sequence

from pipelines.scoring.benchmark_figures import Figures
from pipelines.scoring.rows import Row, TrackRow

BACKBONES = ("Video-Swin-T", "Video-Swin-B")

PAPER: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "ref-youtube-vos": {"J&F": (0.620, 0.657)},
    "ref-davis17": {"J&F": (0.619, 0.633)},
    # The published README prints these two IoUs swapped.
    "a2d-sentences": {"mAP": (0.561, 0.585), "overall_iou": (None, 0.799), "mean_iou": (None, 0.720)},
    "jhmdb-sentences": {"mAP": (0.444, 0.450)},
    "refcoco": {"overall_iou": (None, 0.763)},
    "refcoco+": {"overall_iou": (None, 0.664)},
    "refcocog": {"overall_iou": (None, 0.700)},
}
"""Dataset → figure → its value with Video-Swin-T and Video-Swin-B (spec data.md §5)."""

SPLIT = {"ref-youtube-vos": "valid", "ref-davis17": "valid", "a2d-sentences": "test", "jhmdb-sentences": "test"}
"""The split the paper reports; val of the RefCOCO sets."""

OFFICIAL = {
    "ref-youtube-vos": (202, 834),
    "ref-davis17": (30, 244),
    "a2d-sentences": (737, 1295),
    "jhmdb-sentences": (928, 928),
    "refcoco": (1500, 10834),
    "refcoco+": (1500, 10758),
    "refcocog": (1300, 4896),
}
"""Videos (or images) and expressions of the official split; of Ref-DAVIS17, objects times annotators.

Counted in the published annotation files of A2D and JHMDB; the others as their papers give them.
"""

Line = tuple[str, float, float | None, float | None]
"""Figure, ours, the paper's two."""


def is_official(dataset: str, splits: Sequence[str], rows: Sequence[Row]) -> bool:
    """Returns whether the rows are those of the whole split that the paper reports, by their counts."""
    kept = [row for row in rows if not isinstance(row, TrackRow) or row.protocol != "strict-id"]
    sentences = {(row.video, *_sentence(row)) for row in kept}
    counts = (len({row.video for row in kept}), len(sentences))
    return list(splits) == [SPLIT.get(dataset, "val")] and counts == OFFICIAL.get(dataset)


def _sentence(row: Row) -> tuple[str | int | None, ...]:
    if isinstance(row, TrackRow) and row.protocol == "unsupervised":
        return row.truth_id, row.annotator
    return (row.expression,)


def with_paper_figures(dataset: str, found: Figures, *, official: bool) -> list[Line]:
    """Pairs each of our figures with the paper's, if it reports one of these data."""
    reported = PAPER.get(dataset, {}) if official else {}
    return [(name, value, *reported.get(name, (None, None))) for name, value in found.items()]


def summary_text(title: str, dataset: str, lines: Sequence[Line], *, official: bool) -> str:
    """Formats the table as text, in percent; a dash for COCO's -1 (no such object)."""
    paper = [f"paper {backbone}" for backbone in BACKBONES] if official and dataset in PAPER else []
    width = max(len(name) for name, *_ in lines)
    rows = [f"{'':{width}}  {'ours':>7}" + "".join(f"  {name:>18}" for name in paper)]
    for name, ours, *theirs in lines:
        ours_text = "-" if ours == -1 and "AP" in name else _percent(ours)
        row = f"{name:{width}}  {ours_text:>7}"
        rows.append(row + "".join(f"  {_percent(value):>18}" for value in theirs[: len(paper)]))
    split = SPLIT.get(dataset, "val")
    note = f"paper: SgMg (ICCV 2023), split {split}" if paper else ""
    if not official and dataset in OFFICIAL:
        note = "the paper's figures are of {} {}, {} videos with {} expressions: not of these data".format(
            dataset, split, *OFFICIAL[dataset]
        )
    return "\n".join(filter(None, [title, *rows, note]))


def summary_csv(lines: Sequence[Line]) -> bytes:
    """Formats the table as CSV, in fractions of 1."""
    head = ["figure", "ours", *(f"paper {backbone}" for backbone in BACKBONES)]
    rows = [[name, *("" if value is None else repr(value) for value in values)] for name, *values in lines]
    return ("\n".join(",".join(row) for row in [head, *rows]) + "\n").encode()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
