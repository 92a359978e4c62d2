"""The pictures of one video: decoded from a video file, or the encoded images of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.predictions import mean_rate
from pipelines.sources.reading import item_bytes
from pipelines.sources.video_files import decode_video


@dataclass(frozen=True, slots=True)
class Pictures:
    """The frames of one video, from images or from a video file, and the bytes that its fingerprint is made from."""

    names: tuple[str, ...]
    frames: tuple[bytes, ...]
    width: int
    height: int
    source: str
    raw: tuple[bytes, ...]
    timestamps: tuple[float, ...] | None = None
    fps: float | None = None
    other_tracks: str = ""

    def chosen(self, indices: Sequence[int]) -> "Pictures":
        """Returns the pictures of some frames only, in this order; their rate is that of their times."""
        times = self.timestamps and tuple(self.timestamps[index] for index in indices)
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            frames=tuple(self.frames[index] for index in indices),
            timestamps=times,
            fps=mean_rate(times) if times else self.fps,
        )


def pictures_of_file(root: Folder, name: str, video: str, quality: int) -> Pictures:
    """Decodes a video file; its frames are named 00000, 00001, ….

    Args:
        root: folder of the file.
        name: of the file in the folder.
        video: for messages.
        quality: JPEG quality of the frames.

    Raises:
        BadItem: the file is missing, damaged, or no video.
    """
    data = item_bytes(root, name, video)
    try:
        decoded = decode_video(data, quality)
    except ValueError as error:
        raise BadItem(video, "decode", f"{root.path(name)}: {error}") from error
    names = tuple(f"{index:05d}" for index in range(len(decoded.frames)))
    size = (decoded.width, decoded.height)
    times, fps, others = decoded.timestamps, decoded.fps, decoded.other_tracks
    return Pictures(names, decoded.frames, *size, name, (data,), times, fps, others)
