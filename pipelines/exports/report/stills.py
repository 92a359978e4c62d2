"""A still for every video of the page: the overlay's own, else one frame decoded once more with its best mask."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.drawing.overlay import draw_masks
from pipelines.errors import BadItem
from pipelines.exports.overlay_video import poster_name, still
from pipelines.exports.report.gather import Best, VideoSummary
from pipelines.files import Folder
from pipelines.video.decoder import VideoDecoder
from pipelines.video.frames_by_name import FramesByName, video_of_prediction
from sgmg.masks import Size, rle_to_mask

REPORT, OVERLAYS, STILLS = "report", "overlay", "thumbs"
"""Folders: of the page and all it needs but the overlays; of overlays, beside it; of stills, in it."""

_TIME_LIMIT = 60.0  # seconds: a page does not wait longer for one picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Still:
    """A picture to be made: a frame, and the best mask of the video, if there is one, in its expression's colour."""

    name: str  # of the file
    source: str
    size: Size
    frame: str  # its name
    best: tuple[int, Best] | None  # the place of the expression, and its mask


def stills_to_draw(out: Folder, told: Sequence[VideoSummary]) -> list[Still]:
    """Those that are not there yet, of videos without an overlay."""
    overlays, there = set(out.names(OVERLAYS, ".jpg")), set(_stills(out))
    wanted = [_still(one) for one in told if _poster(one) not in overlays]
    return [each for each in wanted if each.name not in there]


def draw_stills(out: Folder, stills: Sequence[Still]) -> None:
    """Decodes and writes them; a video that cannot be decoded has none, which is said.

    Raises:
        OSError: there is no room, or no permission.
    """
    with VideoDecoder(_TIME_LIMIT) as decoder:
        for one in stills:
            try:
                data = _decoded(decoder, one)
            except BadItem as bad:
                _log.warning("no still of %s: %s", bad.video, bad.reason)
                continue
            out.write(f"{REPORT}/{STILLS}/{one.name}", data)


def stills_of(out: Folder, told: Sequence[VideoSummary]) -> dict[str, str]:
    """Where the page finds the still of each video that has one, relative to it; those of others are removed."""
    overlays, there = set(out.names(OVERLAYS, ".jpg")), set(_stills(out))
    found: dict[str, str] = {}
    for one in told:
        if (poster := _poster(one)) in overlays:
            found[one.video] = f"../{OVERLAYS}/{poster}"
        elif (name := _still(one).name) in there:
            found[one.video] = f"{STILLS}/{name}"
    for left in there - {path.removeprefix(f"{STILLS}/") for path in found.values()}:
        out.remove(f"{REPORT}/{STILLS}/{left}")
    return found


def _stills(out: Folder) -> list[str]:
    return out.names(f"{REPORT}/{STILLS}", ".jpg")


def _poster(one: VideoSummary) -> str:
    return poster_name(f"{one.video}.mp4")


def _still(one: VideoSummary) -> Still:
    """That of the expression that is surest of its mask, else of the first frame.

    Another picture has another name, so that a still never shows what is no longer so.
    """
    known = [(place, asked.best) for place, asked in enumerate(one.asked) if asked.best]
    best = max(known, key=lambda each: each[1].score, default=None)
    drawn = repr((best, one.source, one.size, one.first_frame))
    name = f"{one.video}-{hashlib.sha256(drawn.encode()).hexdigest()[:8]}.jpg"
    return Still(name, one.source, one.size, best[1].frame if best else one.first_frame, best)


def _decoded(decoder: VideoDecoder, one: Still) -> bytes:
    with FramesByName(decoder, video_of_prediction(one.source)) as frames:
        found = list(frames.read([one.frame]))
    if not found or found[0].image.shape[:2] != one.size:
        raise BadItem(one.source, "overlay", f"frame {one.frame} cannot be decoded any more")
    if one.best is None:
        return still(found[0].image)
    place, best = one.best
    none = np.zeros(one.size, np.bool_)
    return still(draw_masks(found[0].image, [*[none] * place, rle_to_mask(best.rle, one.size)]))
