"""Frames of one video file, one after the other from wherever they are asked for; what is damaged is told, not shown.

Runs in the decoder's own process (`pipelines.video.decoder_process`).
"""

from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, Int, UInt8

from pipelines.errors import BadItem
from pipelines.video.listing import Video
from pipelines.video.pixels import rgb, turned
from pipelines.video.probe import Timeline, VideoInfo, opened, packet_times, probe_file, seconds
from pipelines.video.shots import CutDetector

UNTIMED_FPS = 24.0
"""Frames a second of what carries no times: images, and files that give neither times nor a rate."""

Alive = Callable[[], None]
"""Called after every frame that is decoded, asked for or not: a long video may take long, but goes on."""

_UNTIMED = -1 << 63


def _unheard() -> None:
    """Nobody waits."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was asked for, upright with square pixels, and what was damaged since the one before."""

    key: int | str
    image: UInt8[np.ndarray, "h w 3"]
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """Frames are missing here, or all that would follow."""

    reason: str


def file_timeline(video: Video, shots: bool, alive: Alive = _unheard) -> Timeline:
    """Every frame of a file, from its packets where they can be trusted, else by decoding all of it, as cuts need too.

    Raises:
        BadItem: it cannot be opened, or not one frame decoded.
    """
    info = probe_file(video)
    found = packet_times(video)
    alive()
    if found and not shots:
        stamps, unit, note = found
        return Timeline(info, stamps, seconds(stamps, unit), note=note)
    seen, cuts, damage = _watched(video, shots, alive)
    if not len(seen):
        raise BadItem(video.path, "decode", f"not one frame can be decoded ({damage or 'it holds none'})")
    if found:
        stamps, unit, note = found
        # A cut may lie in a damaged stretch: the first frame listed from there on begins the shot.
        places = np.unique(np.searchsorted(stamps, seen[cuts])).tolist()
        return Timeline(info, stamps, seconds(stamps, unit), cuts=tuple(places), note=note)
    note = f"part of the file is damaged ({damage})" if damage else ""
    return Timeline(info, np.arange(len(seen)), _evened(video, seen, info.fps), True, tuple(cuts), note)


def file_frames(
    video: Video,
    info: VideoInfo,
    keys: Int[np.ndarray, " n"],
    counted: bool,
    seek: bool,
    alive: Alive = _unheard,
) -> Iterator[Frame | Damage]:
    """The frames of these keys, which rise, whatever frame the decoder has to begin at.

    Args:
        seek: begin at the key frame before the first key; without, at the start of the file.

    Raises:
        BadItem: it cannot be opened.
    """
    damage = ""
    last = _UNTIMED
    place, at = -1, 0
    for frame in _from(video, int(keys[0]) if seek and not counted else None):
        alive()
        if isinstance(frame, Damage):
            damage = damage or frame.reason
            continue
        place += 1
        key = place if counted else frame.pts
        if key is None or key <= last:
            continue
        last = key
        at += int(np.searchsorted(keys[at:], key))
        if at < len(keys) and keys[at] == key:
            yield Frame(key, _shown(frame, info), damage)
            damage = ""
        if key >= keys[-1]:
            break
    if damage:
        yield Damage(damage)


def _shown(frame: av.VideoFrame, info: VideoInfo) -> UInt8[np.ndarray, "h w 3"]:
    width, height = info.shown_width, info.shown_height
    image = rgb(frame, (height, width) if "t" in info.orientation else (width, height))
    return np.ascontiguousarray(turned(image, info.orientation))


def _from(video: Video, first: int | None) -> Iterator[av.VideoFrame | Damage]:
    """Frames from one that is shown no later than `first`, or from the start."""
    if first is not None:
        with opened(video) as (container, stream):
            container.seek(first, stream=stream)
            frames = _decoded(container, stream)
            begins = next(frames, None)
            if isinstance(begins, av.VideoFrame) and begins.pts is not None and begins.pts <= first:
                yield begins
                yield from frames
                return
    # The index led too far, or straight into damage: only the way from the start gives what a player would show.
    with opened(video) as (container, stream):
        yield from _decoded(container, stream)


def _decoded(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | Damage]:
    """All whole frames from here on. After damage nothing counts until the next key frame: it would be guessed."""
    lost = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            yield from _left(stream)
            yield Damage(f"the file ends early: {error.strerror}")
            return
        if packet is None:
            return
        if lost and not packet.is_keyframe:
            continue
        lost = False
        try:
            for frame in packet.decode():
                yield Damage("the decoder marks it as damaged") if frame.is_corrupt else frame
        except FFmpegError as error:
            yield from _left(stream)
            yield Damage(error.strerror or str(error))
            lost = True


def _left(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """What the decoder still holds from before the damage; then it is as new."""
    with suppress(FFmpegError):  # it holds nothing that could be shown; whoever called tells of the damage
        yield from (frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt)
    stream.codec_context.flush_buffers()


def _watched(video: Video, shots: bool, alive: Alive) -> tuple[Int[np.ndarray, " n"], list[int], str]:
    """The time stamps of all frames as they are decoded, the places of cuts among them, and the first damage."""
    detector = CutDetector() if shots else None
    stamps = array("q")
    damage = ""
    with opened(video) as (container, stream):
        for frame in _decoded(container, stream):
            alive()
            if isinstance(frame, Damage):
                damage = damage or frame.reason
                continue
            stamps.append(_UNTIMED if frame.pts is None else frame.pts)
            if detector:
                detector.see(frame)
    return np.asarray(stamps, dtype=np.int64), detector.cuts if detector else [], damage


def _evened(video: Video, stamps: Int[np.ndarray, " n"], fps: float | None) -> Float[np.ndarray, " n"]:
    """Seconds of frames. Stamps that do not rise (AVI gives them in coding order) become even steps from the first."""
    with opened(video) as (_, stream):
        unit = stream.time_base
    known = stamps[stamps > _UNTIMED]
    if unit and len(known) == len(stamps) and (np.diff(stamps) > 0).all():
        return seconds(stamps, unit)
    start = float(known.min() * unit) if unit and len(known) else 0.0
    return start + np.arange(len(stamps)) / (fps or UNTIMED_FPS)
