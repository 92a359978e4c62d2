"""The paper's figures, and the table of ours beside them."""

from collections.abc import Sequence

from pipelines.scoring.figures import Figures

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

Line = tuple[str, float, float | None, float | None]
"""Figure, ours, the paper's two."""


def with_paper_figures(dataset: str, found: Figures) -> list[Line]:
    """Pairs each of our figures with the paper's, if it reports one."""
    reported = PAPER.get(dataset, {})
    return [(name, value, *reported.get(name, (None, None))) for name, value in found.items()]


def summary_text(title: str, dataset: str, lines: Sequence[Line]) -> str:
    """Formats the table as text, in percent; a dash for COCO's -1 (no such object)."""
    paper = [f"paper {backbone}" for backbone in BACKBONES] if dataset in PAPER else []
    width = max(len(name) for name, *_ in lines)
    rows = [f"{'':{width}}  {'ours':>7}" + "".join(f"  {name:>18}" for name in paper)]
    for name, ours, *theirs in lines:
        ours_text = "-" if ours == -1 and "AP" in name else _percent(ours)
        row = f"{name:{width}}  {ours_text:>7}"
        rows.append(row + "".join(f"  {_percent(value):>18}" for value in theirs[: len(paper)]))
    note = f"paper: SgMg (ICCV 2023), split {SPLIT.get(dataset, 'val')}" if paper else ""
    return "\n".join(filter(None, [title, *rows, note]))


def summary_csv(lines: Sequence[Line]) -> bytes:
    """Formats the table as CSV, in fractions of 1."""
    head = ["figure", "ours", *(f"paper {backbone}" for backbone in BACKBONES)]
    rows = [[name, *("" if value is None else repr(value) for value in values)] for name, *values in lines]
    return ("\n".join(",".join(row) for row in [head, *rows]) + "\n").encode()


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
