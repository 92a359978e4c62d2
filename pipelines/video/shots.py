"""Detection of cuts between shots while frames are decoded."""

from fractions import Fraction

import av
from av.video.reformatter import Interpolation
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

LONGER_SIDE = 256
"""Longer side in pixels of the frames for the detector, which averages colours; larger frames only cost time."""
SHORTEST = 2
"""Frames of the shortest shot: a change of a single frame is a flash. A larger value would hide real cuts."""


class CutDetector:
    """PySceneDetect's detector of changes that are sudden relative to motion. Keeps five scores and two frames.

    Does not detect fades, dissolves, or changes within the first and last frames of a video. A frame of another size
    than the one before begins a shot.
    """

    def __init__(self) -> None:
        self._detector = AdaptiveDetector(min_scene_len=SHORTEST)
        self._seen = 0
        self._size: tuple[int, int] | None = None
        self.cuts: list[int] = []
        """Indices, among the frames seen so far, of those that begin a new shot."""

    def see(self, frame: av.VideoFrame) -> None:
        """Takes the next frame of the video."""
        if self._size not in (None, (frame.width, frame.height)):
            self._detector = AdaptiveDetector(min_scene_len=SHORTEST)  # it compares frames of one size
            self.cuts.append(self._seen)
        self._size = (frame.width, frame.height)
        scale = min(1.0, LONGER_SIDE / max(frame.width, frame.height))
        width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        # The detector counts frames; the rate is only used for their names.
        now = FrameTimecode(self._seen, Fraction(25))
        small = frame.to_ndarray(format="bgr24", width=width, height=height, interpolation=Interpolation.AREA)
        self.cuts += [found.frame_num for found in self._detector.process_frame(now, small)]
        self._seen += 1
