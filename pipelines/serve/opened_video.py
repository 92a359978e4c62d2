"""A video of a request: checked against the limits, and cut into windows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.annotate.decode import window_record
from pipelines.annotate.plan import rate_of, seconds_of
from pipelines.annotate.settings import Settings
from pipelines.errors import BadItem
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.records import Expression
from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import Limits
from pipelines.video.decoder import VideoDecoder, Window
from pipelines.video.listing import Video
from pipelines.video.probe import VideoInfo
from pipelines.video.segments import DecodeUnit, segments
from sgmg.masks import Size
from sgmg.resize import resized_size

VIDEO_ID = "video"
"""Id of the video in the files of an answer: nothing that a client sent is part of a path."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedVideo:
    """A video that is within the limits.

    Attributes:
        video: the uploaded file, or the folder of the uploaded images.
        name: that the client gave it, for display.
        unit: all its windows.
        named_by_index: whether frames are named by their index.
        seconds: its length.
        fps: mean rate of the frames that are answered; None if nothing tells.
        settings: by which it was cut into windows.
    """

    video: Video
    name: str
    unit: DecodeUnit
    named_by_index: bool
    seconds: float
    fps: float | None
    settings: Settings

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that the API tells of it: size, frames, rate, length and number of windows."""
        info = self.unit.info
        return {
            "width": info.shown_width,
            "height": info.shown_height,
            "frames": len(self.unit.times),
            "fps": self.fps,
            "seconds": round(self.seconds, 3),
            "windows": len(self.unit.windows),
        }

    @property
    def times(self) -> list[float]:
        """Seconds at which each answered frame is shown."""
        return [round(time, 4) for time in self.unit.times.tolist()]

    def model_size(self, protocol: InferenceProtocol) -> Size:
        """Returns height and width of the frames that the model sees."""
        info = self.unit.info
        return resized_size(info.shown_height, info.shown_width, protocol.short_side, protocol.long_side)

    def model_frames(self, window: Window, expressions: tuple[Expression, ...]) -> ModelFrames:
        """Returns a window as the model is shown it, with what is asked of it."""
        record = window_record(self.unit, window, expressions, self.named_by_index, self.fps)
        record = replace(record, video=VIDEO_ID, source=self.name)
        many = self.settings.follows and len(self.unit.windows) > 1
        return ModelFrames(record, tuple(range(len(window.frames))), window.frames, many)


def open_video(decoder: VideoDecoder, video: Video, name: str, settings: Settings, limits: Limits) -> OpenedVideo:
    """Looks at a video, and cuts it into windows.

    Args:
        decoder: that reads it, in a process of its own.
        video: the uploaded file, or the folder of the uploaded images.
        name: for display.
        settings: rate and windows.
        limits: of requests.

    Raises:
        Refusal: it is no video, or too large.
    """
    try:
        _check_size(decoder.probe(video), limits)
        timeline = decoder.timeline(video, image_fps=settings.image_fps, exif_times=settings.fps is not None)
    except BadItem as error:
        raise unreadable(error) from error
    seconds = seconds_of(timeline)
    if seconds > limits.seconds and not timeline.untimed:
        raise Refusal(413, f"The video lasts {seconds:.0f} s, the limit is {limits.seconds:g} s. Send a part of it.")
    (unit,) = segments(video, timeline, fps=settings.fps, length=settings.window, overlap=settings.overlap)
    if len(unit.times) > limits.frames:
        raise Refusal(
            413,
            f"{len(unit.times)} frames of the video would be answered, the limit is {limits.frames}. Send a part of "
            f"it, or ask for fewer frames a second with the field fps.",
        )
    return OpenedVideo(video, name, unit, timeline.named_by_index, seconds, rate_of(timeline, unit), settings)


def _check_size(info: VideoInfo, limits: Limits) -> None:
    pixels = info.shown_width * info.shown_height
    if pixels > limits.pixels:
        raise Refusal(
            413,
            f"The frames have {info.shown_width} x {info.shown_height} = {pixels} pixels, the limit is "
            f"{limits.pixels}. Send a smaller version of the video.",
        )


def unreadable(error: BadItem) -> Refusal:
    """Returns the refusal of a video that cannot be decoded. It names no path of this machine."""
    return Refusal(422, f"The video cannot be used: {error.reason}.".replace("..", "."))


@contextmanager
def in_decoder() -> Iterator[None]:
    """Refuses what fails to decode in the block.

    Raises:
        Refusal: the video is damaged.
    """
    try:
        yield
    except BadItem as error:
        raise unreadable(error) from error


def save_window(window: Window, folder: Path) -> int:
    """Writes a window into a folder, and returns its bytes."""
    stem = folder / f"{window.number:06d}-{window.shot:04d}-{int(window.indices[0]):08d}"
    np.save(stem.with_suffix(".npy"), window.frames)
    about = {
        "number": window.number,
        "shot": window.shot,
        "timestamps": window.timestamps.tolist(),
        "indices": window.indices.tolist(),
        "names": window.names,
        "note": window.note,
        "remark": window.remark,
    }
    stem.with_suffix(".json").write_text(json.dumps(about))
    return window.frames.nbytes


def saved_windows(folder: Path) -> Iterator[Window]:
    """Yields the windows that `save_window` wrote into a folder, in order."""
    for file in sorted(folder.glob("*.json")):
        about = json.loads(file.read_text())
        yield Window(
            number=about["number"],
            shot=about["shot"],
            frames=np.load(file.with_suffix(".npy"), mmap_mode="r"),
            timestamps=np.array(about["timestamps"]),
            indices=np.array(about["indices"]),
            names=tuple(about["names"]),
            note=about["note"],
            remark=about["remark"],
        )
