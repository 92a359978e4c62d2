"""Encoded clips that a replica keeps, so that a further sentence costs only itself."""

from collections import OrderedDict

from pipelines.inference.segment_clip import EncodedClip


class ClipCache:
    """The clips that were used last, within a number of bytes of the device that they are on.

    Args:
        most: bytes; a clip that is larger than that is not kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._clips: OrderedDict[str, EncodedClip] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clips)

    def get(self, key: str) -> EncodedClip | None:
        """Returns the clip that was kept under a key; None if it is not there, or not any more."""
        clip = self._clips.get(key)
        if clip is not None:
            self._clips.move_to_end(key)
        return clip

    def put(self, key: str, clip: EncodedClip) -> None:
        """Keeps a clip, and drops those that were not used for longest until all fit."""
        self.drop(key)
        if clip.bytes > self.most:
            return
        self._clips[key] = clip
        self.bytes += clip.bytes
        while self.bytes > self.most:
            self.drop(next(iter(self._clips)))

    def drop(self, key: str) -> None:
        """Drops a clip, if it is kept."""
        clip = self._clips.pop(key, None)
        if clip is not None:
            self.bytes -= clip.bytes
