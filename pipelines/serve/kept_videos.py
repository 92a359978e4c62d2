"""Videos that are kept between requests, as windows on disk: bounded in time and bytes."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.serve.opened_video import OpenedVideo
from pipelines.serve.refusal import Refusal


@dataclass(slots=True, eq=False)
class KeptVideo:
    """A video that is decoded and, as long as its replicas have room, encoded.

    Attributes:
        id: made of the content and of how it was cut into windows.
        opened: the video.
        folder: of its file and its windows.
        bytes: on disk.
        expires: time of the clock at which it is deleted, unless it is used.
        users: requests that read it.
        gone: whether it is deleted once nobody reads it.
    """

    id: str
    opened: OpenedVideo
    folder: Path
    bytes: int
    expires: float = 0.0
    users: int = 0
    gone: bool = False


class KeptVideos:
    """The kept videos of one front. For several threads.

    Args:
        keep: seconds from the last use of a video until it is deleted.
        most: bytes of all videos; those that were not used for longest are deleted for a new one.
        clock: seconds.
    """

    def __init__(self, keep: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.keep, self.most, self._clock = keep, most, clock
        self._videos: dict[str, KeptVideo] = {}
        self._reserved = 0
        self._guard = threading.RLock()

    def __len__(self) -> int:
        return len(self._videos)

    @property
    def bytes(self) -> int:
        """Bytes of all videos on disk."""
        with self._guard:
            return sum(one.bytes for one in self._videos.values())

    @contextmanager
    def room(self, more: int) -> Iterator[None]:
        """Makes room for a new video of so many bytes, and holds it until the block, which adds the video, ends.

        Unused videos are deleted for it, the longest unused first.

        Raises:
            Refusal: even then there is no room.
        """
        self._reserve(more)
        try:
            yield
        finally:
            with self._guard:
                self._reserved -= more

    def _reserve(self, more: int) -> None:
        with self._guard:
            unused = sorted((one for one in self._videos.values() if not one.users), key=lambda one: one.expires)
            while self.bytes + self._reserved + more > self.most and unused:
                self._delete(unused.pop(0))
            if self.bytes + self._reserved + more > self.most:
                raise Refusal(
                    413,
                    f"The frames of this video take {more / 1e6:.0f} MB, more than the service has left to keep videos "
                    f"({self.most / 1e6:.0f} MB). Send it to /segment, which keeps nothing, or a part of it.",
                )
            self._reserved += more

    def add(self, video: KeptVideo) -> KeptVideo:
        """Keeps a video, and returns it; if an equal one was added meanwhile, deletes this one and returns that."""
        with self._guard:
            known = self._videos.get(video.id)
            if known is not None:
                shutil.rmtree(video.folder, ignore_errors=True)
                video = known
            self._videos[video.id] = video
            self._touch(video)
            return video

    def find(self, id: str) -> KeptVideo | None:
        """Returns a video, and keeps it for longer; None if it is not there."""
        self.sweep()
        with self._guard:
            video = self._videos.get(id)
            if video is not None:
                self._touch(video)
            return video

    def get(self, id: str) -> KeptVideo:
        """Returns a video, and keeps it for longer.

        Raises:
            Refusal: it is not there.
        """
        video = self.find(id)
        if video is None:
            minutes = self.keep / 60
            raise Refusal(
                404,
                f"There is no video of this id: videos are deleted {minutes:g} minutes after their last use, or when "
                f"room is needed. Send it to /videos again.",
            )
        return video

    @contextmanager
    def reading(self, id: str) -> Iterator[KeptVideo]:
        """Returns a video that stays until the block ends.

        Raises:
            Refusal: it is not there.
        """
        with self._guard:
            video = self.get(id)
            video.users += 1
        try:
            yield video
        finally:
            with self._guard:
                video.users -= 1
                self._touch(video)
                if video.gone and not video.users:
                    shutil.rmtree(video.folder, ignore_errors=True)

    def remove(self, id: str) -> None:
        """Deletes a video; requests that read it end first.

        Raises:
            Refusal: it is not there.
        """
        with self._guard:
            self._delete(self.get(id))

    def sweep(self) -> None:
        """Deletes the videos whose time is over."""
        with self._guard:
            for video in [one for one in self._videos.values() if one.expires <= self._clock() and not one.users]:
                self._delete(video)

    def seconds_left(self, video: KeptVideo) -> int:
        """Returns the seconds until a video is deleted, if it is not used before."""
        return max(0, round(video.expires - self._clock()))

    def _touch(self, video: KeptVideo) -> None:
        video.expires = self._clock() + self.keep

    def _delete(self, video: KeptVideo) -> None:
        self._videos.pop(video.id, None)
        video.gone = True
        if not video.users:
            shutil.rmtree(video.folder, ignore_errors=True)
