"""The page of a comparison: one HTML file that opens from disk, beside its pictures, and loads nothing else."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from pipelines.files import Folder
from pipelines.scoring.comparison import Comparison, Interval, Line
from pipelines.scoring.rows import Row

PAGE = "index.html"
_ROWS = 200
"""Lines of a table of the page; comparison.csv and videos.csv hold all."""


def write_page(out: Folder, comparison: Comparison, title: str, pictures: Sequence[tuple[str, Row]]) -> None:
    """Writes the page.

    Args:
        title: what was scored.
        pictures: of the largest disagreements: the file, relative to the page, and a row of what it shows.
    """
    names, notes = comparison.names, "".join(f"<p>{escape(note)}.</p>" for note in comparison.notes)
    parts = [
        f"<h1>{escape(' and '.join((', '.join(names[:-1]), names[-1])))}</h1><p>{escape(title)}: "
        f"{escape(comparison.mean)}, in per cent. A difference is that to {escape(names[0])}; its 95 % interval is "
        f"drawn from whole videos, 10 000 times.</p>{notes}",
        _section("All", _table(comparison, [comparison.total], "")),
        _section("Figures of the benchmark", _figures(comparison)),
    ]
    for attribute, lines in comparison.by_attribute.items():
        parts.append(_section(f"By {attribute}", _table(comparison, lines, attribute)))
    if pictures:
        shown = "".join(
            f'<figure><a href="{escape(file)}"><img src="{escape(file)}" loading="lazy" alt=""></a>'
            f"<figcaption><q>{escape(row.text or 'object')}</q> {escape(row.video)}, expression "
            f"{escape(row.expression)}</figcaption></figure>"
            for file, row in pictures
        )
        parts.append(_section("Where they differ most", f'<div class="pictures">{shown}</div>'))
    parts.append(_section("Videos, largest difference first", _videos(comparison)))
    page = Template((Path(__file__).parent / "comparison.html").read_text(encoding="utf-8"))
    out.write(PAGE, page.substitute(title=escape(title), body="\n".join(parts)).encode())


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _head(comparison: Comparison, first: str) -> str:
    others = "".join(f"<th>{escape(name)} over {escape(comparison.names[0])}" for name in comparison.names[1:])
    runs = "".join(f"<th>{escape(name)}" for name in comparison.names)
    return f"<thead><tr><th>{escape(first)}<th>expressions<th>videos{runs}{others}</thead>"


def _table(comparison: Comparison, lines: Iterable[Line], first: str) -> str:
    rows = "".join(
        f"<tr><th>{escape(line.name)}<td>{line.rows}<td>{line.videos}"
        + "".join(f"<td>{100 * score:.1f}" for score in line.scores)
        + "".join(map(_difference, line.differences, line.intervals or (None,) * len(line.differences)))
        for line in lines
    )
    return f'<div class="scroll"><table>{_head(comparison, first)}<tbody>{rows}</table></div>'


def _difference(mean: float, interval: Interval | None) -> str:
    if interval is None:
        return f"<td>{100 * mean:+.1f}"
    low, high = interval
    kind = "better" if low > 0 else "worse" if high < 0 else "open"
    return f'<td class="{kind}">{100 * mean:+.1f} <small>[{100 * low:+.1f}, {100 * high:+.1f}]</small>'


def _figures(comparison: Comparison) -> str:
    runs = "".join(f"<th>{escape(name)}" for name in comparison.names)
    rows = "".join(
        f"<tr><th>{escape(name)}"
        + "".join(f"<td>{100 * found[name]:.1f}" if name in found else "<td>" for found in comparison.figures)
        for name in comparison.figures[0]
    )
    return f'<div class="scroll"><table><thead><tr><th>{runs}</thead><tbody>{rows}</table></div>'


def _videos(comparison: Comparison) -> str:
    lines = sorted(comparison.videos, key=lambda line: -max(map(abs, line.differences)))
    more = f"<p>{len(lines) - _ROWS} more are in videos.csv.</p>" if len(lines) > _ROWS else ""
    return _table(comparison, lines[:_ROWS], "video") + more
