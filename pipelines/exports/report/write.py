"""Writing of the report: page, styles, and data as scripts, since a page opened from disk cannot fetch files."""

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
from sgmg.json_text import parse_json

_VIDEOS, _PROBLEMS = 50, 1000  # per data file
_DATA = "data"
_STATUSES = ("ok", "absent", "partial")
_OURS = re.compile(r"(?:page|problems)-[0-9]{4,}\.js")
_HERE = Path(__file__).parent
_ASSETS = ("page.css", "model.js", "parts.js", "verdicts.js", "details.js", "page.js")
_CONFIG = "config.json"
_LONG = 300  # maximum letters of a setting


def write_report(out: Folder) -> None:
    """Writes `report/index.html` about the predictions, overlays and quarantine in the folder.

    Can be called again at any time. While it is being written, readers see the older list of videos, never a broken
    page. Memory holds a summary of every expression, and one row group of predictions.

    Raises:
        ValueError: a file of predictions or the quarantine is damaged; the message names it.
        OSError: the disk is full, or permission is denied.
    """
    videos = gather(out)
    draw_stills(out, stills_to_draw(out, videos))
    write_pages(out, videos)


def write_pages(out: Folder, videos: Sequence[VideoSummary]) -> None:
    """Writes the report of these videos, with the stills that exist. The last step of `write_report`.

    Raises:
        ValueError: the quarantine is damaged.
        OSError: the disk is full, or permission is denied.
    """
    report = out.folder(REPORT)
    for folder in ("", "assets", _DATA, STILLS):
        report.remove_unfinished(folder)
    stills = stills_of(out, videos)
    overlays = set(out.names(OVERLAYS, ".mp4"))
    written: set[str] = set()
    for number, batch in enumerate(_batches(videos, _VIDEOS)):
        details = {one.video: _details(one, stills.get(one.video), overlays) for one in batch}
        written.add(_write(report, f"page-{number:04d}.js", "page", number, details))
    problems = 0
    for number, lines in enumerate(_batches(_quarantine(out), _PROBLEMS)):
        problems += len(lines)
        written.add(_write(report, f"problems-{number:04d}.js", "problems", number, lines))
    for name in _ASSETS:
        report.write(f"assets/{name}", (_HERE / name).read_bytes())
    config = _config(out)
    index = {
        "run": (config.get("made_by") or {}).get("fingerprint", "")[:16],
        **_index(videos, problems, _about(config)),
    }
    _write(report, "index.js", "index", index)
    report.write("index.html", (_HERE / "page.html").read_bytes())
    for name in report.names(_DATA):
        if _OURS.fullmatch(name) and name not in written:
            report.remove(f"{_DATA}/{name}")


def script(call: str, *values: Any) -> bytes:
    r"""Returns a script that passes values to the page, escaped so that it can also be inlined in HTML.

    >>> script("page", 0, "</script>")
    b'report.page(0,"\\u003c/script>");\n'
    """
    arguments = ",".join(json.dumps(value, separators=(",", ":")).replace("<", r"\u003c") for value in values)
    return f"report.{call}({arguments});\n".encode()


def _write(report: Folder, name: str, call: str, *values: Any) -> str:
    report.write(f"{_DATA}/{name}", script(call, *values))
    return name


def _index(videos: Sequence[VideoSummary], problems: int, about: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the data that filters need, for all videos, by column; each name and sentence is stored once."""
    sentences = {
        text: number for number, text in enumerate(dict.fromkeys(a.text for one in videos for a in one.expressions))
    }
    parents = [one.source.rpartition("/")[0] for one in videos]
    folders = {path: number for number, path in enumerate(dict.fromkeys(parents))}
    expressions = [each for one in videos for each in one.expressions]
    most = max((len(one.expressions) for one in videos), default=0)
    return {
        "batch": _VIDEOS,
        "colours": ["rgb({} {} {})".format(*colour_of(number)) for number in range(most)],
        "about": about,
        "frames": sum(one.frames for one in videos),
        "problems": {"count": problems, "files": -(-problems // _PROBLEMS)},
        "sentences": list(sentences),
        "folders": list(folders),
        "videos": {
            "id": [one.video for one in videos],
            "name": [one.name for one in videos],
            "folder": [folders[path] for path in parents],
            "seconds": [round(one.seconds, 2) for one in videos],
            "expressions": [len(one.expressions) for one in videos],
        },
        "rows": {
            "sentence": [sentences[each.text] for each in expressions],
            "score": [round(1000 * each.score) for each in expressions],
            "status": [_STATUSES.index(each.status) for each in expressions],
        },
    }


def _details(one: VideoSummary, still: str | None, overlays: set[str]) -> dict[str, Any]:
    """Returns the data of one video that its card and details need in addition to the index."""
    name = f"{one.video}.mp4"
    return {
        "source": one.source,
        "width": one.size[1],
        "height": one.size[0],
        "frames": one.frames,
        "fps": one.fps,
        "still": still,
        "overlay": f"../{OVERLAYS}/{name}" if name in overlays else None,
        "expressions": [_curve(each) for each in one.expressions],
    }


def _curve(each: ExpressionSummary) -> dict[str, Any]:
    return {
        "expression": each.expression,
        "note": each.note,
        "peak": round(1000 * each.peak),
        "visible": round(1000 * each.visible),
        "scores": each.scores,
        "masked": each.masked,
    }


def _quarantine(out: Folder) -> Iterator[dict[str, str]]:
    """Yields the lines of the quarantine, with all their fields as text.

    Raises:
        ValueError: a line is not a JSON object.
    """
    lines = (out.read_if_there(QUARANTINE) or b"").decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
            yield {str(name): str(value) for name, value in entry.items()}
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{out.path(QUARANTINE)}, line {number} is no JSON object. Run the job again.") from error


def _config(out: Folder) -> dict[str, Any]:
    """Returns the run's config.json; empty if there is none.

    Raises:
        ValueError: it is damaged.
    """
    written = out.read_if_there(_CONFIG)
    try:
        config = parse_json(written) if written is not None else {}
        (config.get("made_by") or {}).get("fingerprint")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{out.path(_CONFIG)} is damaged ({error}). Run the job that wrote it again.") from error
    return config


def _about(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the settings of a run as text, and in words how many sentences were asked together."""
    together = (config.get("made_by") or {}).get("sentences_together", 1)
    asked = "each for itself" if together == 1 else f"up to {together} of a video together"
    settings = [(name, text if len(text) <= _LONG else text[:_LONG] + "…") for name, text in _flat(config)]
    return [("sentences were asked", asked), *settings] if settings else []


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
