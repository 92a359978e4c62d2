"""Properties of a video file, and when its frames are shown, from headers and packets, without decoding if possible.

Runs in the decoder process (`pipelines.video.decoder_process`): a broken file may hang or crash its reader.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import PurePosixPath

import av
import numpy as np
import pyarrow as pa
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, Int

from pipelines.errors import BadItem
from pipelines.files import is_uri, resolve_filesystem, safe_name
from pipelines.video.listing import Video
from pipelines.video.pixels import aspect_of, orientation_of, square_size
from pipelines.video.tracks import choose_track, limit_decoder, why_no_track

TRUSTED = ("mov", "matroska")
"""Containers whose packets have presentation times, so that frames can be listed and sought without decoding."""
READABLE = "mov,matroska,avi,mpeg,mpegts,flv,asf,ogg,gif,mjpeg,image2,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,mp3,wav,aac"
"""Formats that FFmpeg may detect. Playlists are excluded: they would make FFmpeg open other files."""
IMAGES = "images"
"""What a folder of images has for a container."""
END = 2**16
"""Bytes at both ends of a file that are part of its fingerprint, with its size."""


OnFrame = Callable[[], None]
"""Called after every frame or packet that was read, selected or not, as proof that reading goes on."""


def no_heartbeat() -> None:
    """Does nothing: no process waits for a heartbeat."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The content of the header and the first frame.

    Args:
        width, height: of the upright frames, in the file's own pixels: the size that OpenCV and FFmpeg report, and the
            size of masks.
        shown_width, shown_height: with square pixels: the size of the frames of a `Window`.
        orientation: how frames are turned to stand upright: `t` if x and y are swapped, then `x`, `y` if mirrored.
        aspect: width by height of one stored pixel, as "16/11".
        fps: average frames per second; None if the file does not give it.
        duration: seconds; None if the file does not give it.
        frames: number of frames according to the header; None if it does not give it.
        fingerprint: of the size and both ends of the file, or of the names and sizes of the images.
        unit: seconds of a time stamp, as "1/15360"; empty where frames cannot be told by their time.
        remark: what was decided that a person may want to know; empty if nothing.
    """

    width: int
    height: int
    shown_width: int
    shown_height: int
    orientation: str
    aspect: str
    fps: float | None
    duration: float | None
    frames: int | None
    container: str
    codec: str
    pixels: str
    video_streams: int
    audio_streams: int
    fingerprint: str
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Every frame of a video in display order, with 16 bytes per frame, so that hours of video take little memory.

    Args:
        keys: identify a frame for decoding: its time stamp, its index, or the name of the image.
        times: seconds.
        index_keys: whether keys are indices; reading then always begins at the first frame.
        cuts: indices of the frames that begin a new shot.
        note: what is wrong with the file although its frames can be read; empty if nothing.
    """

    info: VideoInfo
    keys: Int[np.ndarray, " n"] | tuple[str, ...]
    times: Float[np.ndarray, " n"]
    index_keys: bool = False
    cuts: tuple[int, ...] = ()
    note: str = ""

    @property
    def untimed(self) -> bool:
        """Whether nothing tells when the frames were taken: those of images, mostly."""
        return self.info.container == IMAGES and self.info.fps is None

    @property
    def named_by_index(self) -> bool:
        """Whether frames are named by their index: those of files, and images with unsafe or duplicate names."""
        if not isinstance(self.keys, tuple):
            return True
        stems = [PurePosixPath(key).stem for key in self.keys]
        try:
            return len({safe_name(stem) for stem in stems}) < len(stems)
        except ValueError:
            return True


@contextmanager
def opened(video: Video) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Opens the file and its best video stream. Uses one thread, so that errors are raised at their own packet.

    Raises:
        BadItem: the file does not exist, is not readable for this user, is empty, is no video, or holds only sound.
    """
    with _errors_named(video), _file(video) as file, _stream(video, file) as (container, stream, _):
        yield container, stream


@contextmanager
def _errors_named(video: Video) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadItem(video.path, "read", "the file is gone, or was never there") from error
    except PermissionError as error:
        raise BadItem(video.path, "read", "permission denied. Make the file readable for this user.") from error
    except FFmpegError as error:
        raise BadItem(video.path, "decode", f"the file is no video, or cut short ({error.strerror})") from error
    except (OSError, pa.ArrowException) as error:
        raise BadItem(video.path, "read", f"the file cannot be read ({error})") from error


@contextmanager
def _file(video: Video) -> Iterator[pa.NativeFile]:
    filesystem, path = resolve_filesystem(video.path)
    with filesystem.open_input_file(path) as file:
        if not file.size():
            raise BadItem(video.path, "decode", "the file is empty")
        yield file


@contextmanager
def _stream(video: Video, file: pa.NativeFile) -> Iterator[tuple[InputContainer, av.VideoStream, str]]:
    """Opens the track that is read; yields what there is to say of others too."""
    with ExitStack() as stack:
        container = stack.enter_context(_container(video, file))
        track = choose_track(container)
        if track is None:
            raise BadItem(video.path, "decode", why_no_track(container))
        if len(container.streams.video) > 1:  # packets were read to choose
            stack.close()
            file.seek(0)
            container = stack.enter_context(_container(video, file))
        stream = container.streams[track.index]
        assert isinstance(stream, av.VideoStream)
        try:
            limit_decoder(stream)
        except ValueError as error:
            raise BadItem(video.path, "decode", str(error)) from error
        yield container, stream, track.remark


@contextmanager
def _container(video: Video, file: pa.NativeFile) -> Iterator[InputContainer]:
    options = {"format_whitelist": READABLE, "protocol_whitelist": "file"}
    # FFmpeg reads local files itself; `file:` keeps it from taking a name for a protocol. Other files are read in
    # large blocks, since each read is a request to the object store.
    source: object = file if is_uri(video.path) else f"file:{resolve_filesystem(video.path)[1]}"
    size = 2**22 if source is file else 2**15
    with av.open(source, "r", options=options, metadata_errors="replace", buffer_size=size) as container:
        yield container


@dataclass(frozen=True, slots=True, eq=False)
class PacketTimes:
    """Time stamps of all frames in display order, their unit in seconds, and what is wrong with the file."""

    stamps: Int[np.ndarray, " n"]
    unit: Fraction
    note: str

    @property
    def seconds(self) -> Float[np.ndarray, " n"]:
        """The time stamps in seconds, each rounded once."""
        return seconds(self.stamps, self.unit)


def probe_file(video: Video) -> VideoInfo:
    """Returns the content of the header and the first frame.

    Raises:
        BadItem: the file cannot be opened, or no frame can be decoded.
    """
    return _probe(video, packets=False, heartbeat=no_heartbeat)[0]


def probe_packets(video: Video, heartbeat: OnFrame = no_heartbeat) -> tuple[VideoInfo, PacketTimes | None]:
    """Returns what `probe_file` returns, and the times of all frames from their packets, in one pass over the file.

    There are no times if packets do not have them; the file then has to be decoded.

    Raises:
        BadItem: the file cannot be opened, or no frame can be decoded.
    """
    return _probe(video, packets=True, heartbeat=heartbeat)


def _probe(video: Video, packets: bool, heartbeat: OnFrame) -> tuple[VideoInfo, PacketTimes | None]:
    with _errors_named(video), _file(video) as file:
        fingerprint = _fingerprint(file)
        with _stream(video, file) as (container, stream, remark):
            times = _Packets(container, stream) if packets else None
            frame: av.VideoFrame | None = None
            for packet in _demuxed(container, stream, times):
                if frame is None:
                    frame = next(iter(packet.decode()), None)
                elif times is None or times.useless:
                    break
                heartbeat()
            if frame is None:
                raise (times and times.error) or BadItem(video.path, "decode", "the file holds no frame")
            info = _info(video, container, stream, frame, fingerprint)
            return replace(info, remark=remark), times and times.found()


def _demuxed(container: InputContainer, stream: av.VideoStream, times: "_Packets | None") -> Iterator[av.Packet]:
    """Yields all packets of a stream; where its end cannot be read, that is an error only if it is not noted."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            if times is None:
                raise
            times.error = error
            return
        if packet is None:
            return
        if times is not None:
            times.add(packet)
        yield packet


class _Packets:
    """The time stamps of the packets of a stream so far."""

    def __init__(self, container: InputContainer, stream: av.VideoStream) -> None:
        self.useless = not _unit(container, stream)
        self.error: FFmpegError | None = None
        self._stream = stream
        self._stamps = array("q")
        self._hidden = 0

    def add(self, packet: av.Packet) -> None:
        """Adds a packet."""
        if not packet.size or self.useless:
            return
        if packet.is_discard:  # excluded by an edit list
            self._hidden += 1
        elif packet.pts is None:
            self.useless = True
        else:
            self._stamps.append(packet.pts)

    def found(self) -> PacketTimes | None:
        """Returns the times of all frames; None if packets do not have them."""
        known = np.unique(np.asarray(self._stamps, dtype=np.int64))  # sorted
        unit = self._stream.time_base
        if self.useless or unit is None or len(known) < len(self._stamps):
            return None
        frames, note = len(known) + self._hidden, ""
        if self.error:
            note = f"the file ends early ({self.error.strerror})"
        elif self._stream.frames > frames:
            note = f"the file ends after {frames} of {self._stream.frames} frames"
        return PacketTimes(known, unit, note)


def _info(
    video: Video, container: InputContainer, stream: av.VideoStream, frame: av.VideoFrame, fingerprint: str
) -> VideoInfo:
    aspect = aspect_of(stream)
    try:
        orientation = orientation_of(frame)
        shown = square_size(frame.width, frame.height, aspect)
    except ValueError as error:
        raise BadItem(video.path, "decode", str(error)) from error
    stored = (frame.width, frame.height)
    return VideoInfo(
        *(reversed(stored) if "t" in orientation else stored),
        *(reversed(shown) if "t" in orientation else shown),
        orientation=orientation,
        aspect=str(aspect),
        fps=float(stream.average_rate) if stream.average_rate else None,
        duration=_duration(container, stream),
        frames=stream.frames or None,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixels=frame.format.name,
        video_streams=len(container.streams.video),
        audio_streams=len(container.streams.audio),
        fingerprint=fingerprint,
        unit=_unit(container, stream),
    )


def _unit(container: InputContainer, stream: av.VideoStream) -> str:
    """Returns the seconds of a time stamp; empty where packets may lack them."""
    trusted = set(TRUSTED) & set(container.format.name.split(","))
    return str(stream.time_base) if trusted and stream.time_base is not None else ""


def seconds(stamps: Int[np.ndarray, " n"], unit: Fraction) -> Float[np.ndarray, " n"]:
    """Converts time stamps to seconds, each rounded once."""
    return stamps * unit.numerator / unit.denominator


def _duration(container: InputContainer, stream: av.VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _fingerprint(file: pa.NativeFile) -> str:
    """Returns a hash of the size of the file and its two ends, where containers keep their index and times."""
    size = file.size()
    ends = file.read(END)
    file.seek(max(0, size - END))
    digest = hashlib.sha256(b"%d " % size + ends + file.read(END)).hexdigest()[:32]
    file.seek(0)
    return digest
