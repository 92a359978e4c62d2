"""The output formats of annotation, made from the rows alone; formats that are up to date are left as they are."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import ray
from ray.exceptions import RayTaskError

from pipelines.annotate.layout import WRITTEN
from pipelines.annotate.settings import FormatName
from pipelines.annotate.video_formats import OF_EACH_VIDEO, OVERLAY, is_written, videos_with_frames
from pipelines.errors import root_cause
from pipelines.exports.cvat import CVAT
from pipelines.exports.frame_files import FRAMES
from pipelines.exports.mask_zip import write_mask_zip
from pipelines.exports.report.gather import by_name, gather
from pipelines.exports.report.stills import draw_stills, stills_to_draw
from pipelines.exports.report.write import write_pages
from pipelines.exports.video_maps import MOST, write_video_maps
from pipelines.exports.youtube_vis import (
    write_coco_frames,
    write_coco_parts,
    write_youtube_vis,
    write_youtube_vis_parts,
)
from pipelines.files import Folder
from pipelines.ledger import Ledger, Rows
from pipelines.prediction_reader import Predictions, counting_of, read_predictions

FILES: dict[FormatName, str] = {
    "youtube-vis": "youtube_vis.json",
    "coco": "coco.json",
    "png": "png.zip",
    "davis": "davis.zip",
    "frames": FRAMES,
    "cvat": CVAT,
    "overlay": OVERLAY,
    "report": "report/index.html",
}
"""Path of each format in the folder of the run. Parquet is always written."""

_FILES_OF_ALL: tuple[FormatName, ...] = ("youtube-vis", "coco", "png", "davis")

_IN_PARTS: tuple[FormatName, ...] = ("youtube-vis", "coco")

_LAYOUT = 2
"""Version of the layout of these files; those of another version are written again."""

_CPUS = 1.0
_AT_ONCE = 2
"""Videos, or batches of stills, in flight for each logical core."""
_GATHERED = 256
"""Videos of a task that reads what the report says of them."""
_STILLS = 16
"""Stills of a task: for each, a video is opened and a frame decoded."""


@dataclass(frozen=True, slots=True)
class Written:
    """A format, an overlay or a batch of stills that was written, or why it was not."""

    what: str
    error: str = ""


def impossible(formats: Sequence[FormatName], sentences: Mapping[str, int]) -> dict[str, str]:
    """Returns, by the path of the video, why a format cannot be written of it.

    Args:
        formats: that are asked for.
        sentences: how many each video has, by its path.
    """
    if "davis" not in formats:
        return {}
    reason = "has {} sentences, but a map of davis has {} numbers"
    return {path: reason.format(count, MOST) for path, count in sentences.items() if count > MOST}


def write_formats(
    out: Folder, ledger: Ledger, formats: Sequence[FormatName], time_limit: float, in_parts: bool = False
) -> Iterator[Written]:
    """Writes the formats that are missing or out of date, on Ray. Yields each format, and each video of some formats.

    The failure of one costs no other.

    Args:
        out: folder of the run.
        ledger: of the results.
        formats: which; the report is skipped, `write_page` writes it at the end.
        time_limit: seconds without a heartbeat of the decoder, after which the frames or the overlay of a video fail.
        in_parts: whether files of JSON are written in parts.

    Raises:
        ray.exceptions.RayError: the cluster is lost.
    """
    results = ledger.rows
    if not results:
        return
    whole = _hash([_LAYOUT, _digest(ledger, [one for rows in results.values() for one in rows])])
    files = [name for name in formats if name in _FILES_OF_ALL]
    if "frames" in formats:  # first, as the JSON files name them
        yield from _of_each_video(out, ledger, "frames", time_limit)
    framed = videos_with_frames(out, ledger)
    task = _on_ray(_write_file)
    made_of = ray.put((results, framed))
    waiting = [task.remote(out, name, made_of, whole, in_parts) for name in files]
    for name, written in zip(files, waiting, strict=True):
        yield Written(name, _error(written))
    for name in OF_EACH_VIDEO:
        if name in formats and name != "frames":
            yield from _of_each_video(out, ledger, name, time_limit)


def write_page(out: Folder, ledger: Ledger) -> Iterator[Written]:
    """Writes the HTML report from the results, overlays and quarantine on disk. Yields batches of stills, then it.

    Raises:
        ray.exceptions.RayError: the cluster is lost.
    """
    try:
        yield from _page(out, ledger)
    except RayTaskError as error:
        yield Written("report", root_cause(error))


def _page(out: Folder, ledger: Ledger) -> Iterator[Written]:
    rows = sorted(ledger.rows.values(), key=lambda one: one[0].file)  # videos of one file together
    gathered = _on_ray(gather)
    parts = (rows[start : start + _GATHERED] for start in range(0, len(rows), _GATHERED))
    content = ray.put(by_name(chain.from_iterable(_spread(gathered.remote(out, counting_of(part)) for part in parts))))
    stills = ray.get(_on_ray(stills_to_draw).remote(out, content))
    task = _on_ray(draw_stills)
    batches = [stills[start : start + _STILLS] for start in range(0, len(stills), _STILLS)]
    for number, _ in enumerate(_spread(task.remote(out, batch) for batch in batches), start=1):
        yield Written(f"stills, {number} of {len(batches)} batches")
    ray.get(_on_ray(write_pages).remote(out, content))
    yield Written("report")


def _write_file(
    out: Folder,
    name: FormatName,
    made_of: tuple[Mapping[str, Sequence[Rows]], frozenset[str]],
    digest: str,
    in_parts: bool,
) -> None:
    """Writes one format, unless what it is made of has not changed since it was written.

    Args:
        out: folder of the run.
        name: of the format.
        made_of: where the rows of each video are, and the videos whose frames are in the folder of the run.
        digest: of the rows.
        in_parts: whether files of JSON are written in parts.
    """
    results, framed = made_of
    writers: dict[FormatName, Callable[[Predictions, Folder, str], int]] = {
        "youtube-vis": partial(write_youtube_vis_parts if in_parts else write_youtube_vis, framed=framed),
        "coco": partial(write_coco_parts if in_parts else write_coco_frames, framed=framed),
        "png": write_mask_zip,
    }
    path = FILES[name]
    if name in _IN_PARTS:
        path = f"{path.removesuffix('.json')}/00000.json" if in_parts else path
        digest = _hash([digest, sorted(framed)])
    if is_written(out, name, path, digest):
        return
    if name == "davis":
        write_video_maps(results, out, FILES[name])
    else:
        writers[name](read_predictions(out), out, FILES[name])
    out.write(f"{WRITTEN}/{name}.json", json.dumps(digest).encode())


def _error(task: ray.ObjectRef) -> str:
    """Waits for a task, and returns why it failed; empty if it did not."""
    try:
        ray.get(task)
    except RayTaskError as error:
        return root_cause(error)
    return ""


def _of_each_video(out: Folder, ledger: Ledger, name: FormatName, time_limit: float) -> Iterator[Written]:
    """Writes a format of each video on all cores."""
    out.remove_unfinished(FILES[name])
    task = _on_ray(OF_EACH_VIDEO[name])
    tasks = (task.remote(out, video, rows, _digest(ledger, rows), time_limit) for video, rows in ledger.rows.items())
    try:
        yield from map(Written, _spread(tasks))
    except RayTaskError as error:
        yield Written(name, root_cause(error))


def _on_ray(function: Callable[..., Any]) -> Any:
    """Returns the function as a Ray task that takes one core."""
    return ray.remote(num_cpus=_CPUS, max_retries=-1)(function)


def _spread(tasks: Iterable[ray.ObjectRef]) -> Iterator[Any]:
    """Yields task results in completion order, with at most `_AT_ONCE` tasks per core in flight."""
    most = max(1, int(_AT_ONCE * ray.cluster_resources().get("CPU", 1)))
    running: list[ray.ObjectRef] = []
    for task in tasks:
        running.append(task)
        if len(running) >= most:
            yield _first(running)
    while running:
        yield _first(running)


def _first(running: list[ray.ObjectRef]) -> Any:
    (ready,), running[:] = ray.wait(running, num_returns=1)
    return ray.get(ready)


def _digest(ledger: Ledger, rows: Sequence[Rows]) -> str:
    """Returns a hash of where rows are, and of the sizes of these files."""
    sizes = [(*one, ledger.files[one.file]) for one in sorted(rows)]
    return _hash(sizes)


def _hash(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
