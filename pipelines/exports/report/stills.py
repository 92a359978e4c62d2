"""Stills of the videos in the report: the poster of the overlay, else a frame decoded again with its best mask."""

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
"""Folders of the report (without the overlays), of the overlays, and of the stills (in the report's folder)."""

_TIME_LIMIT = 60.0  # seconds to wait for one picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Still:
    """A picture to draw: a frame, with the best mask of the video, if there is one, in the colour of its expression."""

    name: str  # of the file to write
    source: str
    size: Size
    frame: str  # its name
    time: float  # seconds
    best: tuple[int, Best] | None  # index of the expression, and its mask


def stills_to_draw(out: Folder, videos: Sequence[VideoSummary]) -> list[Still]:
    """Returns the missing stills of videos without an overlay."""
    overlays, existing = set(out.names(OVERLAYS, ".jpg")), set(_stills(out))
    stills = [_still(one) for one in videos if _poster(one) not in overlays]
    return [each for each in stills if each.name not in existing]


def draw_stills(out: Folder, stills: Sequence[Still]) -> None:
    """Decodes frames and writes the stills; a video that cannot be decoded is logged and has none.

    Raises:
        OSError: the disk is full, or permission is denied.
    """
    with VideoDecoder(_TIME_LIMIT) as decoder:
        for one in stills:
            try:
                data = _decoded(decoder, one)
            except BadItem as bad:
                _log.warning("no still of %s: %s", bad.video, bad.reason)
                continue
            out.write(f"{REPORT}/{STILLS}/{one.name}", data)


def stills_of(out: Folder, videos: Sequence[VideoSummary]) -> dict[str, str]:
    """Returns the path of each video's still, relative to the page, and deletes stills that are no longer used."""
    overlays, existing = set(out.names(OVERLAYS, ".jpg")), set(_stills(out))
    found: dict[str, str] = {}
    for one in videos:
        if (poster := _poster(one)) in overlays:
            found[one.video] = f"../{OVERLAYS}/{poster}"
        elif (name := _still(one).name) in existing:
            found[one.video] = f"{STILLS}/{name}"
    for left in existing - {path.removeprefix(f"{STILLS}/") for path in found.values()}:
        out.remove(f"{REPORT}/{STILLS}/{left}")
    return found


def _stills(out: Folder) -> list[str]:
    return out.names(f"{REPORT}/{STILLS}", ".jpg")


def _poster(one: VideoSummary) -> str:
    return poster_name(f"{one.video}.mp4")


def _still(one: VideoSummary) -> Still:
    """Returns the still of the expression with the highest score; without masks, of the first frame.

    The name depends on the content, so that an outdated still is never shown.
    """
    known = [(index, expression.best) for index, expression in enumerate(one.expressions) if expression.best]
    best = max(known, key=lambda each: each[1].score, default=None)
    drawn = repr((best, one.source, one.size, one.first_frame))
    name = f"{one.video}-{hashlib.sha256(drawn.encode()).hexdigest()[:8]}.jpg"
    frame, time = (best[1].frame, best[1].time) if best else (one.first_frame, one.first_time)
    return Still(name, one.source, one.size, frame, time, best)


def _decoded(decoder: VideoDecoder, one: Still) -> bytes:
    with FramesByName(decoder, video_of_prediction(one.source)) as frames:
        found = list(frames.read([one.frame], [one.time]))
    if not found or found[0].image.shape[:2] != one.size:
        raise BadItem(one.source, "overlay", f"frame {one.frame} cannot be decoded any more")
    if one.best is None:
        return still(found[0].image)
    index, best = one.best
    none = np.zeros(one.size, np.bool_)
    return still(draw_masks(found[0].image, [*[none] * index, rle_to_mask(best.rle, one.size)]))
