"""Overlay videos: masks drawn into a copy of their video, with the expressions below the picture, and a still."""

import io
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, NamedTuple, cast

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pipelines.drawing.overlay import colour_of, draw_masks, legend
from pipelines.errors import BadItem
from pipelines.exports.mp4 import mp4_file
from pipelines.files import Folder, number_order
from pipelines.predictions import Prediction
from pipelines.video.decoder import VideoDecoder
from pipelines.video.defaults import TIME_LIMIT
from pipelines.video.frames_by_name import FramesByName, TimedFrame
from pipelines.video.listing import Video
from sgmg.masks import Size, rle_area, rle_to_mask

LONG_EDGE = 1280
"""Maximum pixels of the longer side of a frame in the copy; smaller videos keep their size."""
POSTER_EDGE = 480
"""Pixels of the longer side of a still."""

_NARROWEST = 320  # pixels; on narrower pages text is unreadable
_LETTERS, _SENTENCES = 160, 16  # maximum shown below the picture; the number of further sentences follows
_PAPER = 24  # grey level of the background

_log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """A frame with its masks drawn, before the sentences."""

    picture: UInt8[np.ndarray, "h w 3"]
    time: float  # seconds
    score: float  # sum of the scores of the visible objects; the still shows the frame with the highest


def write_overlay(
    out: Folder,
    name: str,
    video: Video,
    segments: Iterable[Sequence[Prediction]],
    *,
    long_edge: int = LONG_EDGE,
    time_limit: float = TIME_LIMIT,
) -> None:
    """Decodes the video again and writes it with its masks as MP4 (H.264), and its best frame as `poster_name`.

    Each expression has its own colour, by the order of ids. Frames keep their times, with the first at 0. Memory holds
    one segment of predictions and a few frames.

    Args:
        segments: for each segment, in order, the predictions of all expressions.
        long_edge: maximum pixels of the longer side of a frame.
        time_limit: maximum seconds to wait for the decoder.

    Raises:
        BadItem: the video changed, is missing, or cannot be decoded any more.
        ValueError: there are no predictions, a mask is damaged, or a segment has expressions that the first one lacks.
        OSError: the disk is full, or permission is denied.
    """
    parts = iter(segments)
    first = next(parts, None)
    if not first:
        raise ValueError(f"{video.path} has no predictions to draw. Leave it out.")
    expressions = sorted(first, key=lambda one: number_order(one.expression))
    layout = Layout.of(expressions, long_edge)
    poster: tuple[float, bytes] = (-1.0, b"")
    # A local file first: moving the index to the front (faststart) needs a second pass over the file.
    with VideoDecoder(time_limit) as decoder, TemporaryDirectory(prefix="overlay-") as folder:
        path = Path(folder) / "overlay.mp4"
        with FramesByName(decoder, video) as frames, mp4_file(path, layout.size) as mp4:
            for shown in _shown(frames, video, chain([first], parts), expressions, layout):
                mp4.add(layout.page(shown.picture), shown.time)
                if shown.score > poster[0]:
                    poster = (shown.score, still(shown.picture))
        out.write(poster_name(name), poster[1])
        with path.open("rb") as source, out.output(name) as stream:
            shutil.copyfileobj(source, cast(IO[bytes], stream), 2**20)


def poster_name(name: str) -> str:
    """Returns the name of the still of an overlay.

    >>> poster_name("overlay/cat-0123456789.mp4")
    'overlay/cat-0123456789.jpg'
    """
    return str(PurePosixPath(name).with_suffix(".jpg"))


def still(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encodes a picture as a small JPEG."""
    image = Image.fromarray(picture)
    image.thumbnail((POSTER_EDGE, POSTER_EDGE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of the pictures of one overlay; both sides are even, as H.264 requires."""

    frame: Size  # of the video and its masks
    drawn: Size  # of the frame within the picture
    size: Size
    strip: UInt8[np.ndarray, "height width 3"]  # the sentences

    @classmethod
    def of(cls, expressions: Sequence[Prediction], long_edge: int) -> "Layout":
        """Returns the layout for a video with these expressions."""
        height, width = expressions[0].height, expressions[0].width
        scale = min(1.0, long_edge / max(height, width))
        drawn = (max(1, round(height * scale)), max(1, round(width * scale)))
        page = max(drawn[1], _NARROWEST)
        page += page % 2
        lines = [(_short(one.text), colour_of(place)) for place, one in enumerate(expressions)]
        more = [(f"and {len(lines) - _SENTENCES} more", None)] if len(lines) > _SENTENCES else []
        strip = legend([*lines[:_SENTENCES], *more], page)
        total = drawn[0] + len(strip)
        return cls((height, width), drawn, (total + total % 2, page), strip)

    def picture(
        self, frame: UInt8[np.ndarray, "h w 3"], masks: Sequence[Bool[np.ndarray, "h w"]]
    ) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Draws the masks into a frame, at the size `drawn`."""
        if self.drawn == self.frame:
            return draw_masks(frame, masks)
        size = self.drawn[::-1]
        small = [cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) for mask in masks]
        less = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        return draw_masks(less, [np.asarray(mask, np.uint8).view(np.bool_) for mask in small])

    def page(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """Puts a drawn frame above the sentences, centred if it is narrower than the page."""
        page = np.full((*self.size, 3), _PAPER, np.uint8)
        (height, width), left = self.drawn, (self.size[1] - self.drawn[1]) // 2
        page[:height, left : left + width] = picture
        page[height : height + len(self.strip)] = self.strip
        return page


def _shown(
    frames: FramesByName,
    video: Video,
    segments: Iterable[Sequence[Prediction]],
    expressions: Sequence[Prediction],
    layout: Layout,
) -> Iterator[Shown]:
    """Yields every predicted frame that can be decoded, with its masks drawn."""
    order = {one.expression: place for place, one in enumerate(expressions)}
    missing = 0
    for part in segments:
        places = [{name: at for at, name in enumerate(one.frame_names)} for one in part]
        times = {name: time for one in part for name, time in zip(one.frame_names, one.timestamps or (), strict=False)}
        names = list(dict.fromkeys(name for one in part for name in one.frame_names))
        missing += len(names)
        for frame in frames.read(names, list(times.values()) if times.keys() == set(names) else ()):
            missing -= 1
            found = [(one, at[frame.name]) for one, at in zip(part, places, strict=True) if frame.name in at]
            yield _drawn(frame, video, found, order, layout)
    if missing:
        _log.warning("%s: %d of its predicted frames cannot be decoded any more", video.path, missing)


def _drawn(
    frame: TimedFrame, video: Video, found: Sequence[tuple[Prediction, int]], order: dict[str, int], layout: Layout
) -> Shown:
    if frame.image.shape[:2] != layout.frame:
        is_, was = (f"{width} x {height}" for height, width in (frame.image.shape[:2], layout.frame))
        raise BadItem(video.path, "overlay", f"its frames are {is_}, those of its masks {was}: it changed")
    masks = [np.zeros(layout.frame, np.bool_)] * len(order)
    score = 0.0
    for one, at in found:
        if one.expression not in order:
            raise ValueError(
                f"{video.path}: expression {one.expression} is missing in the first segment. "
                f"Give the same expressions in every segment."
            )
        track = one.queries[0]
        if rle_area(track.rle[at], layout.frame):
            masks[order[one.expression]] = rle_to_mask(track.rle[at], layout.frame)
            score += track.scores[at]
    return Shown(layout.picture(frame.image, masks), frame.time, score)


def _short(text: str) -> str:
    """Shortens a sentence to the letters that the legend has room for."""
    words = " ".join(text.split())
    return words if len(words) <= _LETTERS else words[: _LETTERS - 1] + "…"
