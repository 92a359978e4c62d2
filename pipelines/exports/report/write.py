"""Writes the page: what it says as scripts, since a page opened from disk may fetch nothing, and its looks."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.drawing.overlay import colour_of
from pipelines.exports.report.gather import ExpressionSummary, VideoSummary, gather
from pipelines.exports.report.stills import OVERLAYS, REPORT, STILLS, draw_stills, stills_of, stills_to_draw
from pipelines.files import Folder
from pipelines.manifest import QUARANTINE

_VIDEOS, _PROBLEMS = 50, 1000  # a data file
_DATA = "data"
_STATUSES = ("ok", "absent", "partial")
_OURS = re.compile(r"(?:page|problems)-[0-9]{4,}\.js")
_HERE = Path(__file__).parent
_ASSETS = ("page.css", "model.js", "parts.js", "details.js", "page.js")
_CONFIG = "config.json"
_LONG = 300  # letters of a setting


def write_report(out: Folder) -> None:
    """Writes `report/index.html` about what is in the folder: predictions, overlays, quarantine.

    Written again it shows what is there then; readers of a half-written one see an older list, never a broken page.
    Memory holds a line of numbers for every expression of every video, of predictions a row group.

    Raises:
        ValueError: a file of predictions or the quarantine is damaged; the message names it.
        OSError: there is no room, or no permission.
    """
    told = gather(out)
    draw_stills(out, stills_to_draw(out, told))
    write_told(out, told)


def write_told(out: Folder, told: Sequence[VideoSummary]) -> None:
    """As `write_report`, of what was gathered, with the stills that are there.

    Raises:
        ValueError: the quarantine is damaged.
        OSError: there is no room, or no permission.
    """
    report = out.folder(REPORT)
    for folder in ("", "assets", _DATA, STILLS):
        report.remove_unfinished(folder)
    stills = stills_of(out, told)
    overlays = set(out.names(OVERLAYS, ".mp4"))
    wanted: set[str] = set()
    for number, videos in enumerate(_batches(told, _VIDEOS)):
        details = {one.video: _details(one, stills.get(one.video), overlays) for one in videos}
        wanted.add(_write(report, f"page-{number:04d}.js", "page", number, details))
    problems = 0
    for number, lines in enumerate(_batches(_quarantine(out), _PROBLEMS)):
        problems += len(lines)
        wanted.add(_write(report, f"problems-{number:04d}.js", "problems", number, lines))
    for name in _ASSETS:
        report.write(f"assets/{name}", (_HERE / name).read_bytes())
    _write(report, "index.js", "index", _index(told, problems, _about(out)))
    report.write("index.html", (_HERE / "page.html").read_bytes())
    for name in report.names(_DATA):
        if _OURS.fullmatch(name) and name not in wanted:
            report.remove(f"{_DATA}/{name}")


def script(call: str, *values: Any) -> bytes:
    r"""A script that hands values to the page. Nothing in them ends it, whatever place it is copied to.

    >>> script("page", 0, "</script>")
    b'report.page(0,"\\u003c/script>");\n'
    """
    said = ",".join(json.dumps(value, separators=(",", ":")).replace("<", r"\u003c") for value in values)
    return f"report.{call}({said});\n".encode()


def _write(report: Folder, name: str, call: str, *values: Any) -> str:
    report.write(f"{_DATA}/{name}", script(call, *values))
    return name


def _index(told: Sequence[VideoSummary], problems: int, about: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What filters need of all videos, by column: names and sentences once, numbers in lists."""
    sentences = {text: number for number, text in enumerate(dict.fromkeys(a.text for one in told for a in one.asked))}
    parents = [one.source.rpartition("/")[0] for one in told]
    folders = {path: number for number, path in enumerate(dict.fromkeys(parents))}
    asked = [each for one in told for each in one.asked]
    most = max((len(one.asked) for one in told), default=0)
    return {
        "batch": _VIDEOS,
        "colours": ["rgb({} {} {})".format(*colour_of(number)) for number in range(most)],
        "about": about,
        "frames": sum(one.frames for one in told),
        "problems": {"count": problems, "files": -(-problems // _PROBLEMS)},
        "sentences": list(sentences),
        "folders": list(folders),
        "videos": {
            "id": [one.video for one in told],
            "name": [one.name for one in told],
            "folder": [folders[path] for path in parents],
            "seconds": [round(one.seconds, 2) for one in told],
            "expressions": [len(one.asked) for one in told],
        },
        "rows": {
            "sentence": [sentences[each.text] for each in asked],
            "score": [round(1000 * each.score) for each in asked],
            "status": [_STATUSES.index(each.status) for each in asked],
        },
    }


def _details(one: VideoSummary, still: str | None, overlays: set[str]) -> dict[str, Any]:
    """What a card and its details need of a video, beside the index."""
    name = f"{one.video}.mp4"
    return {
        "source": one.source,
        "width": one.size[1],
        "height": one.size[0],
        "frames": one.frames,
        "fps": one.fps,
        "still": still,
        "overlay": f"../{OVERLAYS}/{name}" if name in overlays else None,
        "asked": [_curve(each) for each in one.asked],
    }


def _curve(each: ExpressionSummary) -> dict[str, Any]:
    return {
        "expression": each.expression,
        "note": each.note,
        "peak": round(1000 * each.peak),
        "there": round(1000 * each.there),
        "scores": each.scores,
        "masked": each.masked,
    }


def _quarantine(out: Folder) -> Iterator[dict[str, str]]:
    """The lines of the quarantine, each with all that it says.

    Raises:
        ValueError: a line is no JSON object.
    """
    if not out.has(QUARANTINE):
        return
    for number, line in enumerate(out.read(QUARANTINE).decode(errors="replace").splitlines(), start=1):
        try:
            said = json.loads(line)
            yield {str(name): str(value) for name, value in said.items()}
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{out.path(QUARANTINE)}, line {number} is no JSON object. Run the job again.") from error


def _about(out: Folder) -> list[tuple[str, str]]:
    """The settings that the run kept, as text."""
    if not out.has(_CONFIG):
        return []
    config = json.loads(out.read(_CONFIG))
    return [(name, text if len(text) <= _LONG else text[:_LONG] + "…") for name, text in _flat(config)]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value not in (None, [], ""):
            yield f"{before}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _batches(items: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, count)):
        yield batch
