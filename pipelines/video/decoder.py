"""Decoding of any video to windows of frames, with the memory of a window or two whatever its length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipelines.errors import BadItem
from pipelines.video.decoder_process import DecoderProcess
from pipelines.video.defaults import LENGTH, OVERLAP, TIME_LIMIT
from pipelines.video.listing import Video
from pipelines.video.probe import Timeline, VideoInfo
from pipelines.video.segments import DecodeUnit, segments, with_cuts
from sgmg.masks import Size


@dataclass(frozen=True, slots=True)
class Window:
    """t consecutive (or sampled) frames of one shot, upright, with square pixels.

    Args:
        number: index of the window in its video.
        shot: index of its shot, from 0; 0 if cuts were not detected.
        timestamps: seconds.
        indices: indices of the frames among all frames of the video.
        names: of images without their suffix, else the indices as %05d.
        note: which frames are missing from here to the next window with frames; empty if none.
        remark: what was decided in reading the frames; empty if nothing.
    """

    number: int
    shot: int
    frames: UInt8[np.ndarray, "t h w 3"]
    timestamps: Float[np.ndarray, " t"]
    indices: Int[np.ndarray, " t"]
    names: tuple[str, ...]
    note: str = ""
    remark: str = ""


class VideoDecoder:
    """Probes and decodes videos, one at a time, in a separate process, which is restarted when a video breaks it.

    One decoder serves any number of videos; starting its process takes half a second. Use it in a `with` block, or call
    `close`.

    Args:
        time_limit: seconds without a heartbeat after which a video is a `BadItem`. Time that the caller spends between
            windows does not count.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        if not time_limit > 0:
            raise ValueError(f"time_limit must be above 0 seconds (got {time_limit}).")
        self._process = DecoderProcess(time_limit)

    def __enter__(self) -> "VideoDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        self._process.close()

    def probe(self, video: Video) -> VideoInfo:
        """Returns size, rotation, frame rate and streams, from the header and one frame.

        Raises:
            BadItem: the file does not exist, is unreadable, is no video, holds no frame, or took too long.
        """
        response, _ = self._process.request(video, {"method": "probe"})
        return VideoInfo(**response["info"])

    def timeline(
        self, video: Video, shots: bool = False, image_fps: float | None = None, exif_times: bool = False
    ) -> Timeline:
        """Returns when each frame is shown. Decodes the whole file to detect cuts, or if packets lack times (AVI).

        Args:
            video: which one.
            shots: whether to detect cuts, of a file.
            image_fps: images per second of a folder; by default as its name tells.
            exif_times: whether to open the images of a folder to look for times, if its name tells no rate.

        Raises:
            BadItem: see `probe`.
        """
        how = {"shots": shots, "image_fps": image_fps, "exif_times": exif_times}
        responses = self._process.request(video, {"method": "timeline", **how})
        response = next(responses)
        data = np.empty(response["bytes"], np.uint8)
        self._process.read_payload(video, data.data)
        next(responses)
        names, times = response["names"], data[-8 * response["frames"] :].view(np.float64)
        keys = data[: 8 * response["frames"]].view(np.int64) if names is None else tuple(names)
        info, cuts = VideoInfo(**response["info"]), tuple(response["cuts"])
        return Timeline(info, keys, times, response["index_keys"], cuts, response["note"])

    def windows(
        self, segment: DecodeUnit, size: Size | None = None, shots: tuple[int, int] | None = None
    ) -> Iterator[Window]:
        """Decodes the windows of a segment that have a frame. Damaged frames are left out and noted.

        Where the size of the frames changes, a window ends and another one of the same number begins, of a new shot;
        frames of another size than the first of the video are letterboxed, which is remarked.

        Args:
            size: height and width to which each frame is resized right after decoding, in the decoder process: those of
                video files by FFmpeg (`pixels.SmallFrames`), images as `sgmg.resize.resize_frames` does. By default
                frames have the size at which a player shows them, which for two windows of 4K takes 2 GB.
            shots: length and overlap of windows, if the segment is a whole short video whose cuts are not known: they
                are found while it is decoded, and its windows made so that none crosses one. The decoder process holds
                all its frames until then.

        Raises:
            BadItem: the file cannot be opened, no frame of the segment can be decoded, or it took too long.
        """
        return _windows(self._process, segment, size, shots)


def windows(
    video: Video,
    *,
    fps: float | None = None,
    length: int = LENGTH,
    overlap: int = OVERLAP,
    shots: bool = False,
    start: float | None = None,
    stop: float | None = None,
    image_fps: float | None = None,
    time_limit: float = TIME_LIMIT,
) -> Iterator[Window]:
    """Decodes the windows of a video from `start` to before `stop` seconds.

    The arguments are those of `segments` and `VideoDecoder.timeline`.

    Raises:
        BadItem: the file cannot be opened, no frame can be decoded, or it took too long.
        ValueError: the arguments do not fit together, or no frame lies in that time.
    """
    with VideoDecoder(time_limit) as decoder:
        timeline = decoder.timeline(video, shots, image_fps, exif_times=fps is not None)
        for segment in segments(video, timeline, fps=fps, length=length, overlap=overlap, start=start, stop=stop):
            yield from decoder.windows(segment)


class _Reading:
    """State of reading one segment: the next response of the decoder process, and the frames that are missing."""

    def __init__(self, process: DecoderProcess, segment: DecodeUnit, size: tuple[int, int], shots: bool) -> None:
        self.process, self.segment = process, segment
        names = segment.keys if isinstance(segment.keys, tuple) else ()
        data = b"" if isinstance(segment.keys, tuple) else segment.keys.astype(np.int64).tobytes()
        how = {"names": names, "index_keys": segment.index_keys, "seek": segment.seek, "size": size}
        how["shots"] = shots and not names
        self.responses = process.request(segment.video, {"method": "frames", "info": asdict(segment.info), **how}, data)
        self.reason = ""
        self.remarks: dict[int, str] = {}  # of the frames that have one, by their index in the segment
        self.missing: set[int] = set()
        self.reported: set[int] = set()
        self.cuts: list[int] = []
        self.advance()
        if "cuts" in self.response:
            self.cuts = self.response["cuts"]
            self.advance()

    def advance(self) -> None:
        """Moves to the next response. Frames come in order, so a frame that was passed over does not come later."""
        self.response = next(self.responses)
        self.reason = self.response.get("damage") or self.response.get("end") or self.reason

    @property
    def ended(self) -> bool:
        return "end" in self.response

    def take(self, place: int, pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Reads the frame at an index of the segment into `pixels`. Returns False if it could not be decoded."""
        if self.ended or self.response["key"] != self.segment.keys[place]:
            self.missing.add(place)
            return False
        if remark := self.response["remark"]:
            self.remarks[place] = remark
        self.process.read_payload(self.segment.video, pixels.data)
        self.advance()
        return True

    def note(self, last: bool) -> str:
        """Describes the missing frames that were not reported before; with `last`, also what is wrong with the file."""
        fresh = self.missing - self.reported
        self.reported |= fresh
        damage = (
            f"{len(fresh)} of its frames are damaged or gone ({self.reason or 'the file changed'})" if fresh else ""
        )
        return "; ".join(filter(None, (damage, self.segment.note if last else "")))


def _windows(
    process: DecoderProcess, segment: DecodeUnit, size: Size | None, shots: tuple[int, int] | None
) -> Iterator[Window]:
    """Decodes the windows of a segment, as `VideoDecoder.windows`. Frames of overlaps are copied, not decoded twice."""
    height, width = size or (segment.info.shown_height, segment.info.shown_width)
    reading = _Reading(process, segment, (height, width), shots is not None)
    if shots:
        segment = with_cuts(segment, reading.cuts, *shots)
    before: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    following = [first for first, _, _ in segment.windows[1:]] + [len(segment.keys)]
    numbering = _ShotNumbers()
    said = segment.info.remark if segment.number == 0 else ""
    # Of frames of two sizes that it shares with the unit before, that one had all but those of the last size.
    latest, found = segment.shared - 1, False
    for number, (first, stop, shot) in enumerate(segment.windows):
        frames = np.empty((stop - first, height, width, 3), np.uint8)
        got: list[int] = []
        for place in range(first, stop):
            if place in before:
                frames[len(got)] = before[place]
            elif place in reading.missing or not reading.take(place, frames[len(got)]):
                continue
            got.append(place)
        if not got:
            continue
        if reading.ended:
            reading.missing |= set(range(stop, len(segment.keys)))
        shared = range(following[number], stop)
        before = {place: frames[at].copy() for at, place in enumerate(got) if place in shared}
        last = reading.ended
        for begin, end, remark in _runs(got, reading.remarks):
            counted = numbering.shot(got[begin], shot, remark)
            if got[end - 1] <= latest and end < len(got):
                continue  # the window before had all of these frames
            note = reading.note(last) if end == len(got) else ""
            remarks = "; ".join(filter(None, (said, remark)))
            yield _window(segment, number, counted, frames[begin:end], got[begin:end], note, remarks)
            said = ""
        latest, found = got[-1], True
        if last:
            break
    if not found:
        raise BadItem(segment.video.path, "decode", f"not one frame can be decoded ({reading.reason or 'it is gone'})")


def _runs(places: Sequence[int], remarks: Mapping[int, str]) -> Iterator[tuple[int, int, str]]:
    """Yields first index, index after the last, and remark of each run of frames with one remark."""
    first = 0
    for remark, run in groupby(places, lambda place: remarks.get(place, "")):
        last = first + len(list(run))
        yield first, last, remark
        first = last


class _ShotNumbers:
    """Numbers of shots, where a change of the frames' size begins one too, if no cut was detected there."""

    def __init__(self) -> None:
        self._latest, self._shot, self._remark = -1, -1, ""
        self._changes: list[int] = []

    def shot(self, place: int, shot: int, remark: str) -> int:
        """Returns the shot of a run of frames.

        Args:
            place: index of its first frame in the segment.
            shot: according to the detected cuts.
            remark: of its frames.
        """
        if place > self._latest:
            if shot == self._shot and remark != self._remark:
                self._changes.append(place)
            self._latest, self._shot, self._remark = place, shot, remark
        return shot + sum(change <= place for change in self._changes)


def _window(
    segment: DecodeUnit,
    number: int,
    shot: int,
    frames: UInt8[np.ndarray, "t h w 3"],
    got: list[int],
    note: str,
    remark: str,
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
        remark=remark,
    )
