"""The choice of the video track of a file: a moving picture rather than a still, and the largest of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av import VideoStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from pipelines.safety.limits import MAX_PIXELS
from pipelines.video.pixels import square_size

_ENOUGH = 250
"""Packets of a track after which it is known which others are stills."""


@dataclass(frozen=True, slots=True)
class Track:
    """The track of a file whose frames are taken.

    Attributes:
        index: of the stream in its file.
        remark: which other tracks of moving pictures there are; empty if there is none.
    """

    index: int
    remark: str = ""


def choose_track(container: InputContainer) -> Track | None:
    """Returns the largest track of more than one frame, whatever its flags; else one of a frame that is no cover.

    Among equals the first is taken. Packets may be read, so the file has to be opened again, or sought, before it is
    decoded.

    Returns:
        None if the file holds no picture that can be decoded but perhaps a cover; `why_no_track` says why.
    """
    streams = [stream for stream in container.streams.video if is_decodable(stream)]
    counts = _frames(container, streams) if len(streams) > 1 else {}
    moving = [stream for stream in streams if counts.get(stream.index, 1) > 1]
    pictures = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    found = moving or pictures
    if not found:
        return None
    best = max(found, key=lambda stream: stream.width * stream.height)  # the first of equals
    others = ", ".join(f"track {one.index} of {one.width} x {one.height}" for one in moving if one is not best)
    size = f"{best.width} x {best.height}"
    remark = f"the file has several video tracks: track {best.index} of {size} is read, not {others}" if others else ""
    return Track(best.index, remark)


def why_no_track(container: InputContainer) -> str:
    """Says what a file holds of which `choose_track` finds no track."""
    unknown = [str(stream.index) for stream in container.streams.video if not is_decodable(stream)]
    if unknown:
        which = f"track {unknown[0]}" if len(unknown) == 1 else f"tracks {', '.join(unknown)}"
        return (
            f"the file holds no picture that can be decoded: FFmpeg knows no decoder for the codec of its video "
            f"{which}. Encode it again, for instance as H.264"
        )
    heard = "sound, but no moving picture" if container.streams.audio else "no moving picture"
    return f"the file holds {heard}"


def is_decodable(stream: VideoStream) -> bool:
    """Returns whether FFmpeg has a decoder for a track; without one, PyAV gives it no codec and no size."""
    return stream.codec_context is not None


def limit_decoder(stream: VideoStream) -> None:
    """Lets the decoder of a track use one core, and refuse frames of more than `limits.MAX_PIXELS`.

    One core, since as many videos are decoded at the same time as there are, and errors come at their own packet.

    Raises:
        ValueError: the header says that frames are larger.
    """
    if stream.width and stream.height:
        square_size(stream.width, stream.height, Fraction(1))
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(MAX_PIXELS)}


def _frames(container: InputContainer, streams: Sequence[VideoStream]) -> dict[int, int]:
    """Returns the frames of each stream, by index: from the header, else its first packets are counted.

    A cover has one, and a track of which there is one packet at most among `_ENOUGH` of another is a still: to know for
    sure, the whole file would have to be read.
    """
    covers = {stream.index for stream in streams if stream.disposition & Disposition.attached_pic}
    counts = {stream.index: stream.frames or int(stream.index in covers) for stream in streams}
    unknown = [stream for stream in streams if not counts[stream.index]]
    if len(unknown) == 1 and max(counts.values()) <= 1:  # the only one that can move
        return counts | {unknown[0].index: 2}
    try:
        for packet in container.demux(unknown) if unknown else ():
            counts[packet.stream.index] += bool(packet.size)
            found = [counts[stream.index] for stream in unknown]
            if min(found) > 1 or max(found) >= _ENOUGH:
                break
    except FFmpegError:  # the file ends early: decoding says so
        pass
    return counts
