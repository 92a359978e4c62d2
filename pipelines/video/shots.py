"""Where a video cuts from one shot to the next, as its frames go by."""

from fractions import Fraction

import av
from av.video.reformatter import Interpolation
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

LONGER_SIDE = 256
"""Frames are shrunk to this for the detector, which compares colours on average; more would only cost time."""
SHORTEST = 2
"""Frames of the shortest shot: what changes for one frame alone is a flash. More would hide real cuts."""


class CutDetector:
    """PySceneDetect's detector of sudden changes against the motion around them; it keeps five scores and two frames.

    Fades and dissolves are no cuts to it, nor is a change within the first and last frames of a video.
    """

    def __init__(self) -> None:
        self._detector = AdaptiveDetector(min_scene_len=SHORTEST)
        self._seen = 0
        self.cuts: list[int] = []
        """Numbers, among the frames seen so far, of those that begin a new shot."""

    def see(self, frame: av.VideoFrame) -> None:
        """The next frame of the video."""
        scale = min(1.0, LONGER_SIDE / max(frame.width, frame.height))
        width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        # The detector counts frames; it is told a rate, but only to name them.
        now = FrameTimecode(self._seen, Fraction(25))
        small = frame.to_ndarray(format="bgr24", width=width, height=height, interpolation=Interpolation.AREA)
        self.cuts += [found.frame_num for found in self._detector.process_frame(now, small)]
        self._seen += 1
