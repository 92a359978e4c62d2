"""Reader of the frames of one video file, in order from any frame; damaged frames are reported, not returned.

Runs in the decoder process (`pipelines.video.decoder_process`).
"""

from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, Int, UInt8

from pipelines.errors import BadItem
from pipelines.video.listing import Video
from pipelines.video.pixels import SmallFrames
from pipelines.video.probe import OnFrame, Timeline, VideoInfo, no_heartbeat, opened, probe_packets, seconds
from pipelines.video.shots import CutDetector

UNTIMED_FPS = 24.0
"""Frames per second of inputs without times: images, and files that give neither times nor a rate."""

_UNTIMED = -1 << 63


@dataclass(frozen=True, slots=True)
class Frame:
    """A selected frame, upright with square pixels, the damage since the previous one, and what was done to fit it in.

    A run of frames with one remark is a shot of its own.
    """

    key: int | str
    image: UInt8[np.ndarray, "h w 3"]
    damage: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """Frames are missing here, or all that would follow."""

    reason: str


class Shots:
    """The cuts of a video whose frames are read anyway."""

    def __init__(self) -> None:
        self._detector = CutDetector()
        self._keys: list[int] = []

    def see(self, frame: av.VideoFrame, key: int | None) -> None:
        """Takes the next frame of the video."""
        self._detector.see(frame)
        self._keys.append(_UNTIMED if key is None else key)

    @property
    def cuts(self) -> list[int]:
        """Keys of the frames that begin a new shot."""
        return [self._keys[place] for place in self._detector.cuts]


def file_timeline(video: Video, shots: bool, heartbeat: OnFrame = no_heartbeat) -> Timeline:
    """Lists every frame of a file, from its packets if they are reliable; else, or to detect cuts, by decoding it.

    Raises:
        BadItem: the file cannot be opened, or no frame can be decoded.
    """
    info, found = probe_packets(video, heartbeat)
    if found and not shots:
        return Timeline(info, found.stamps, found.seconds, note=found.note)
    seen, cuts, damage = _scan(video, shots, heartbeat)
    if not len(seen):
        raise BadItem(video.path, "decode", f"not one frame can be decoded ({damage or 'it holds none'})")
    if found:
        # A cut may lie in a damaged section: the next listed frame begins the shot.
        places = np.unique(np.searchsorted(found.stamps, seen[cuts])).tolist()
        return Timeline(info, found.stamps, found.seconds, cuts=tuple(places), note=found.note)
    note = f"part of the file is damaged ({damage})" if damage else ""
    return Timeline(info, np.arange(len(seen)), _evenly_spaced(video, seen, info.fps), True, tuple(cuts), note)


def file_frames(
    video: Video,
    info: VideoInfo,
    keys: Int[np.ndarray, " n"],
    index_keys: bool,
    seek: bool,
    heartbeat: OnFrame = no_heartbeat,
    size: tuple[int, int] | None = None,
    shots: "Shots | None" = None,
) -> Iterator[Frame | Damage]:
    """Yields the frames with these keys (ascending), whatever frame decoding has to begin at.

    Args:
        shots: takes the cuts; the file is then decoded from its start to its end.
        size: height and width of the frames; by default those at which a player shows them.
        seek: begin at the key frame before the first key; otherwise at the start of the file.

    Raises:
        BadItem: the file cannot be opened.
    """
    damage = ""
    shown = (info.shown_height, info.shown_width)
    converted = SmallFrames(shown, size or shown, info.orientation, Fraction(info.aspect))
    last = _UNTIMED
    place, at = -1, 0
    for frame in _frames_from(video, int(keys[0]) if seek and not index_keys else None):
        heartbeat()
        if isinstance(frame, Damage):
            damage = damage or frame.reason
            continue
        place += 1
        if shots:
            shots.see(frame, place if index_keys else frame.pts)
        key = place if index_keys else frame.pts
        if key is None or key <= last:
            continue
        last = key
        at += int(np.searchsorted(keys[at:], key))
        if at < len(keys) and keys[at] == key:
            yield Frame(key, converted(frame), damage, converted.remark(frame))
            damage = ""
        if key >= keys[-1] and not shots:
            break
    if damage:
        yield Damage(damage)


def _frames_from(video: Video, first: int | None) -> Iterator[av.VideoFrame | Damage]:
    """Yields frames from one that is shown no later than `first`, or from the start."""
    if first is not None:
        with opened(video) as (container, stream):
            container.seek(first, stream=stream)
            frames = _decoded(container, stream)
            begins = next(frames, None)
            if isinstance(begins, av.VideoFrame) and begins.pts is not None and begins.pts <= first:
                yield begins
                yield from frames
                return
    # The index led too far or into damage. Only decoding from the start gives the frames that a player shows.
    with opened(video) as (container, stream):
        yield from _decoded(container, stream)


def _decoded(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | Damage]:
    """Yields all intact frames from here on. After damage, skips to the next key frame: others would be guesses."""
    lost = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            yield from _flush_decoder(stream)
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
            yield from _flush_decoder(stream)
            yield Damage(error.strerror or str(error))
            lost = True


def _flush_decoder(stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yields the frames that the decoder still holds from before the damage, and resets it."""
    with suppress(FFmpegError):  # nothing left to show; the caller reports the damage
        yield from (frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt)
    stream.codec_context.flush_buffers()


def _scan(video: Video, shots: bool, heartbeat: OnFrame) -> tuple[Int[np.ndarray, " n"], list[int], str]:
    """Decodes the file. Returns the time stamps of all frames, the indices of cuts among them, and the first damage."""
    detector = CutDetector() if shots else None
    stamps = array("q")
    damage = ""
    with opened(video) as (container, stream):
        for frame in _decoded(container, stream):
            heartbeat()
            if isinstance(frame, Damage):
                damage = damage or frame.reason
                continue
            stamps.append(_UNTIMED if frame.pts is None else frame.pts)
            if detector:
                detector.see(frame)
    return np.asarray(stamps, dtype=np.int64), detector.cuts if detector else [], damage


def _evenly_spaced(video: Video, stamps: Int[np.ndarray, " n"], fps: float | None) -> Float[np.ndarray, " n"]:
    """Converts time stamps to seconds; stamps that do not rise (AVI has coding order) become even steps."""
    with opened(video) as (_, stream):
        unit = stream.time_base
    known = stamps[stamps > _UNTIMED]
    if unit and len(known) == len(stamps) and (np.diff(stamps) > 0).all():
        return seconds(stamps, unit)
    start = float(known.min() * unit) if unit and len(known) else 0.0
    return start + np.arange(len(stamps)) / (fps or UNTIMED_FPS)
