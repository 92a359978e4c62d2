"""A still for every video of the page: the overlay's own, else one frame decoded once more with its best mask."""

import hashlib
import logging

import numpy as np

from pipelines.exports.frames_again import FramesAgain, source_of
from pipelines.exports.overlay_video import poster_name, still
from pipelines.exports.report.gather import Best, Told
from pipelines.files import Folder
from pipelines.overlay import draw_masks
from pipelines.problems import BadItem
from pipelines.video import VideoDecoder
from sgmg.masks import rle_to_mask

OVERLAYS, STILLS = "overlay", "thumbs"
"""Folders: of overlays, beside the report; of stills, in it."""

_TIME_LIMIT = 60.0  # seconds: a page does not wait longer for one picture

_log = logging.getLogger(__name__)


def write_stills(out: Folder, report: Folder, told: tuple[Told, ...]) -> dict[str, str]:
    """Where the page finds the still of each video, relative to it; a video that cannot be decoded has none.

    Stills that are there already stay, those of videos or masks that are no more are removed.

    Raises:
        OSError: there is no room, or no permission.
    """
    overlays, there = set(out.names(OVERLAYS, ".jpg")), set(report.names(STILLS, ".jpg"))
    found: dict[str, str] = {}
    with VideoDecoder(_TIME_LIMIT) as decoder:
        for one in told:
            if (poster := poster_name(f"{one.video}.mp4")) in overlays:
                found[one.video] = f"../{OVERLAYS}/{poster}"
                continue
            name = _name(one)
            if name not in there:
                try:
                    data = _decoded(decoder, one)
                except BadItem as bad:
                    _log.warning("no still of %s: %s", bad.video, bad.reason)
                    continue
                report.write(f"{STILLS}/{name}", data)
            found[one.video] = f"{STILLS}/{name}"
    for left in there - {path.removeprefix(f"{STILLS}/") for path in found.values()}:
        report.remove(f"{STILLS}/{left}")
    return found


def _best(one: Told) -> tuple[int, Best] | None:
    """The expression, by its place, that is surest of its mask, and where."""
    known = [(place, asked.best) for place, asked in enumerate(one.asked) if asked.best]
    return max(known, key=lambda each: each[1].score, default=None)


def _name(one: Told) -> str:
    """Another picture has another name, so that a still never shows what is no longer so."""
    drawn = repr((_best(one), one.source, one.size, one.first_frame))
    return f"{one.video}-{hashlib.sha256(drawn.encode()).hexdigest()[:8]}.jpg"


def _decoded(decoder: VideoDecoder, one: Told) -> bytes:
    best = _best(one)
    frame = best[1].frame if best else one.first_frame
    with FramesAgain(decoder, source_of(one.source)) as frames:
        found = list(frames.read([frame]))
    if not found or found[0].image.shape[:2] != one.size:
        raise BadItem(one.source, "overlay", f"frame {frame} cannot be decoded any more")
    if best is None:
        return still(found[0].image)
    none = np.zeros(one.size, np.bool_)
    return still(draw_masks(found[0].image, [*[none] * best[0], rle_to_mask(best[1].rle, one.size)]))
