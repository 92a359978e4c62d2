"""Every format that annotations are wanted in, made from their rows alone; what is up to date is left as it is."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import ray

from pipelines.annotate.layout import WRITTEN, results_of
from pipelines.annotate.settings import FormatName
from pipelines.errors import BadItem
from pipelines.exports.mask_zip import write_mask_zip
from pipelines.exports.overlay_video import write_overlay
from pipelines.exports.report.gather import gather
from pipelines.exports.report.stills import draw_stills, stills_to_draw
from pipelines.exports.report.write import write_told
from pipelines.exports.video_maps import write_video_maps
from pipelines.exports.youtube_vis import write_coco_frames, write_youtube_vis
from pipelines.files import Folder
from pipelines.inference.quarantine import PREDICTIONS, Failure, write_failures
from pipelines.prediction_reader import Predictions, read_predictions, read_segments
from pipelines.video.frames_by_name import video_of_prediction

FILES: dict[FormatName, str] = {
    "youtube-vis": "youtube_vis.json",
    "coco": "coco.json",
    "png": "png.zip",
    "davis": "davis.zip",
    "overlay": "overlay",
    "report": "report/index.html",
}
"""What a format is called in the folder of the run; Parquet is there in any case."""

_FILES_OF_ALL: tuple[FormatName, ...] = ("youtube-vis", "coco", "png", "davis")

_CPUS = 1.0
_AT_ONCE = 2
"""Overlays, or batches of stills, that are begun, for each logical core."""
_STILLS = 16
"""Stills of a task: each is a video that is opened, and a frame that is decoded."""


def write_formats(out: Folder, formats: Sequence[FormatName], time_limit: float) -> Iterator[str]:
    """Writes what is wanted and not there yet, on Ray; says of each format, and each overlay, when it is there.

    Args:
        out: folder of the run.
        formats: all but the report, which comes last (`write_page`).
        time_limit: seconds that decoding may keep an overlay waiting.

    Raises:
        ray.exceptions.RayError: a result is damaged, or there is no room.
    """
    results = results_of(out)
    if not results:
        return
    whole = _digest(out, [name for names in results.values() for name in names])
    files = [name for name in formats if name in _FILES_OF_ALL]
    task = _on_ray(_write_file)
    waiting = [task.remote(out, name, whole) for name in files]
    for name, written in zip(files, waiting, strict=True):
        ray.get(written)
        yield name
    if "overlay" in formats:
        yield from _overlays(out, results, time_limit)


def write_page(out: Folder) -> Iterator[str]:
    """The report, of what is there: results, overlays, quarantine; says of stills, and of it, when they are there.

    Raises:
        ray.exceptions.RayError: a result or the quarantine is damaged, or there is no room.
    """
    told = _on_ray(gather).remote(out)
    stills = ray.get(_on_ray(stills_to_draw).remote(out, told))
    task = _on_ray(draw_stills)
    batches = [stills[start : start + _STILLS] for start in range(0, len(stills), _STILLS)]
    for number, _ in enumerate(_spread(task.remote(out, batch) for batch in batches), start=1):
        yield f"stills, {number} of {len(batches)} batches"
    ray.get(_on_ray(write_told).remote(out, told))
    yield "report"


def _write_file(out: Folder, name: FormatName, digest: str) -> None:
    """One file of all predictions, if those have changed since."""
    writers: dict[FormatName, Callable[[Predictions, Folder, str], int]] = {
        "youtube-vis": write_youtube_vis,
        "coco": write_coco_frames,
        "png": write_mask_zip,
    }
    if _is_written(out, name, FILES[name], digest):
        return
    if name == "davis":
        write_video_maps(results_of(out), out, FILES[name])
    else:
        writers[name](read_predictions(out), out, FILES[name])
    out.write(f"{WRITTEN}/{name}.json", json.dumps(digest).encode())


def _overlays(out: Folder, results: dict[str, list[str]], time_limit: float) -> Iterator[str]:
    """An overlay a video, as many at once as there are cores."""
    out.remove_unfinished(FILES["overlay"])
    task = _on_ray(write_one_overlay)
    yield from _spread(task.remote(out, video, names, time_limit) for video, names in results.items())


def _on_ray(function: Callable[..., Any]) -> Any:
    """The function as a task of one core."""
    return ray.remote(num_cpus=_CPUS, max_retries=-1)(function)


def _spread(tasks: Iterable[ray.ObjectRef]) -> Iterator[Any]:
    """What the tasks give, as they end; so many are begun at once as keep all cores busy."""
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


def write_one_overlay(out: Folder, video: str, names: Sequence[str], time_limit: float) -> str:
    """The overlay of one video, if its rows have changed since; its name, or what became of it in the quarantine."""
    path = f"{FILES['overlay']}/{video}.mp4"
    digest = _digest(out, names)
    if not _is_written(out, f"overlay-{video}", path, digest):
        failures: list[Failure] = []
        parts = read_segments(out, [f"{PREDICTIONS}/{name}" for name in sorted(names)])
        first = next(parts)
        source = first[0].source
        try:
            write_overlay(out, path, video_of_prediction(source), chain([first], parts), time_limit=time_limit)
            out.write(f"{WRITTEN}/overlay-{video}.json", json.dumps(digest).encode())
        except BadItem as error:
            failures.append(Failure(source, "overlay", error.reason))
        write_failures(out, f"{video}-overlay", failures)
    return f"overlay of {video}"


def _is_written(out: Folder, note: str, path: str, digest: str) -> bool:
    name = f"{WRITTEN}/{note}.json"
    return out.has(path) and out.has(name) and json.loads(out.read(name)) == digest


def _digest(out: Folder, names: Sequence[str]) -> str:
    """Of the names and sizes of results: they change where a result comes to hold more."""
    sizes = [(name, out.size(f"{PREDICTIONS}/{name}")) for name in sorted(names)]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
