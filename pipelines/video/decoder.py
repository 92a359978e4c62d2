"""Any video as windows of frames, in the memory of a window or two however long it is."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipelines.errors import BadItem
from pipelines.video.decoder_process import Child
from pipelines.video.defaults import LENGTH, OVERLAP, TIME_LIMIT
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline, VideoInfo
from pipelines.video.segments import DecodeUnit, segments
from sgmg.preprocess import resize_frames


@dataclass(frozen=True, slots=True)
class Window:
    """t consecutive (or sampled) frames of one shot, upright, with square pixels.

    Args:
        number: of the window within its video.
        shot: number of its shot, from 0; 0 where cuts were not looked for.
        timestamps: seconds.
        indices: places of the frames among all frames of the video.
        names: of images without their suffix, else the indices as %05d.
        note: what is missing here or behind, up to the next window with frames; empty if nothing.
    """

    number: int
    shot: int
    frames: UInt8[np.ndarray, "t h w 3"]
    timestamps: Float[np.ndarray, " t"]
    indices: Int[np.ndarray, " t"]
    names: tuple[str, ...]
    note: str = ""


class VideoDecoder:
    """Probes and decodes videos, one at a time, in a process of its own that it starts again when a video breaks it.

    One serves any number of videos; starting its process takes half a second. Use it in a `with` block, or `close` it.

    Args:
        time_limit: seconds without a sign of life, after which a video is a `BadItem`. Time the caller spends between
            windows does not count.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        if not time_limit > 0:
            raise ValueError(f"A time limit of {time_limit} s lets nothing be decoded. Give seconds above 0.")
        self._child = Child(time_limit)

    def __enter__(self) -> "VideoDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; the next question would start another."""
        self._child.close()

    def probe(self, video: Video) -> VideoInfo:
        """Size, rotation, rate, streams: from the header and one frame.

        Raises:
            BadItem: it is gone, unreadable, no video, holds no frame, or took too long.
        """
        answer, _ = self._child.ask(video, {"ask": "probe"})
        return VideoInfo(**answer["info"])

    def timeline(self, video: Video, shots: bool = False) -> Timeline:
        """When each frame is shown. Reads the whole file; decodes it for cuts, and where packets do not tell (AVI).

        Raises:
            BadItem: as `probe`.
        """
        answers = self._child.ask(video, {"ask": "timeline", "shots": shots})
        answer = next(answers)
        data = np.empty(answer["bytes"], np.uint8)
        self._child.fill(video, data.data)
        next(answers)
        names, times = answer["names"], data[-8 * answer["frames"] :].view(np.float64)
        keys = data[: 8 * answer["frames"]].view(np.int64) if names is None else tuple(names)
        info, cuts = VideoInfo(**answer["info"]), tuple(answer["cuts"])
        return Timeline(info, keys, times, answer["counted"], cuts, answer["note"])

    def windows(self, segment: DecodeUnit, size: tuple[int, int] | None = None) -> Iterator[Window]:
        """The windows of a segment that have a frame; frames that are damaged are missing, and the note says so.

        Args:
            size: height and width to which each frame is resized as it comes, as `sgmg.preprocess.resize_frames` does;
                by default frames are as a player shows them, which for two windows of 4K are 2 GB.

        Raises:
            BadItem: the file cannot be opened, not one frame of the segment decoded, or it took too long.
        """
        return _windows(self._child, segment, size)


def windows(
    video: Video,
    *,
    fps: float | None = None,
    length: int = LENGTH,
    overlap: int = OVERLAP,
    shots: bool = False,
    start: float | None = None,
    stop: float | None = None,
    time_limit: float = TIME_LIMIT,
) -> Iterator[Window]:
    """The windows of a video from `start` to before `stop` seconds; the arguments are those of `segments`.

    Raises:
        BadItem: it cannot be opened, not one frame decoded, or it took too long.
        ValueError: the arguments do not fit one another, or no frame lies in that time.
    """
    with VideoDecoder(time_limit) as decoder:
        timeline = decoder.timeline(video, shots)
        for segment in segments(video, timeline, fps=fps, length=length, overlap=overlap, start=start, stop=stop):
            yield from decoder.windows(segment)


class _Reading:
    """What has been read of a segment so far: the child's next answer, and what it could not give."""

    def __init__(self, child: Child, segment: DecodeUnit) -> None:
        self.child, self.segment = child, segment
        names = segment.keys if isinstance(segment.keys, tuple) else ()
        data = b"" if isinstance(segment.keys, tuple) else segment.keys.astype(np.int64).tobytes()
        how = {"names": names, "counted": segment.counted, "seek": segment.seek}
        self.answers = child.ask(segment.video, {"ask": "frames", "info": asdict(segment.info), **how}, data)
        self.reason = ""
        self.missing: set[int] = set()
        self.told: set[int] = set()
        self.advance()

    def advance(self) -> None:
        """On to the next answer; the child gives frames in order, so one that is passed over will not come."""
        self.answer = next(self.answers)
        self.reason = self.answer.get("damage") or self.answer.get("end") or self.reason

    @property
    def ended(self) -> bool:
        return "end" in self.answer

    def take(self, place: int, pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Fills in the frame at a place of the segment, if it could be decoded."""
        if self.ended or self.answer["key"] != self.segment.keys[place]:
            self.missing.add(place)
            return False
        self.child.fill(self.segment.video, pixels.data)
        self.advance()
        return True

    def note(self, last: bool) -> str:
        """What is missing and was not told before: once nothing more comes, all of the rest."""
        fresh = self.missing - self.told
        self.told |= fresh
        damage = (
            f"{len(fresh)} of its frames are damaged or gone ({self.reason or 'the file changed'})" if fresh else ""
        )
        return "; ".join(filter(None, (damage, self.segment.note if last else "")))


def _windows(child: Child, segment: DecodeUnit, size: tuple[int, int] | None) -> Iterator[Window]:
    """As `VideoDecoder.windows`. Overlaps are copied on."""
    reading = _Reading(child, segment)
    shown_size = (segment.info.shown_height, segment.info.shown_width)
    height, width = size or shown_size
    whole = np.empty((1, *shown_size, 3), np.uint8)
    before: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    following = [first for first, _, _ in segment.windows[1:]] + [len(segment.keys)]
    shown = False
    for number, (first, past, shot) in enumerate(segment.windows):
        frames = np.empty((past - first, height, width, 3), np.uint8)
        got: list[int] = []
        for place in range(first, past):
            if place in before:
                frames[len(got)] = before[place]
            elif place in reading.missing or not reading.take(place, whole[0]):
                continue
            else:
                frames[len(got)] = resize_frames(whole, height, width)[0]
            got.append(place)
        if not got:
            continue
        if reading.ended:
            reading.missing |= set(range(past, len(segment.keys)))
        shared = range(following[number], past)
        before = {place: frames[at].copy() for at, place in enumerate(got) if place in shared}
        shown = True
        last = reading.ended
        yield _window(segment, number, shot, frames[: len(got)], got, reading.note(last))
        if last:
            break
    if not shown:
        raise BadItem(segment.video.path, "decode", f"not one frame can be decoded ({reading.reason or 'it is gone'})")


def _window(
    segment: DecodeUnit, number: int, shot: int, frames: UInt8[np.ndarray, "t h w 3"], got: list[int], note: str
) -> Window:
    indices = segment.indices[got]
    keys = segment.keys
    return Window(
        number=segment.first_window + number,
        shot=shot,
        frames=frames,
        timestamps=segment.times[got],
        indices=indices,
        names=tuple(PurePosixPath(keys[place]).stem for place in got)
        if isinstance(keys, tuple)
        else tuple(f"{index:05d}" for index in indices),
        note=note,
    )
