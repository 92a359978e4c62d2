"""The choice of the video track of a file: a moving picture rather than a still, and the largest of several."""

from collections.abc import Sequence
from dataclasses import dataclass

from av import VideoStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition


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
        None if the file holds no picture but perhaps a cover.
    """
    streams = list(container.streams.video)
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


def _frames(container: InputContainer, streams: Sequence[VideoStream]) -> dict[int, int]:
    """Returns the frames of each stream, by index: from the header, else packets are counted up to two."""
    counts = {stream.index: stream.frames for stream in streams}
    unknown = [stream for stream in streams if not stream.frames]
    try:
        for packet in container.demux(unknown) if unknown else ():
            counts[packet.stream.index] += bool(packet.size)
            if all(counts[stream.index] > 1 for stream in unknown):
                break
    except FFmpegError:  # the file ends early: decoding says so
        pass
    return counts
