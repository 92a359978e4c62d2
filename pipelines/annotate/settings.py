"""What is asked of every video beside the sentences: which frames, in which windows, and what counts as seen."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.inference.protocols import InferenceProtocol
from pipelines.video.defaults import LENGTH, OVERLAP

FormatName = Literal["parquet", "youtube-vis", "coco", "png", "davis", "overlay", "report"]

DATASET = "videos"
WINDOWS_EACH = 8
"""Windows of a unit of work: few, so that workers share a long video and a killed run loses little; enough that the
way from the key frame before it costs little."""
LONGEST = 4
"""Sides longer than so many times the shorter one are shrunk to that: a strip would fill any memory."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what is found, beside videos, sentences and model.

    Attributes:
        fps: frames a second that are looked at; None for all.
        window: frames encoded at once.
        overlap: frames a window shares with the one before, by which an object is known again.
        shots: whether to look for cuts, which no window then crosses.
        independent: every window chooses its query by score alone, as the published inference does.
        min_score: of a frame, below which its mask is empty.
    """

    fps: float | None = None
    window: int = LENGTH
    overlap: int = OVERLAP
    shots: bool = False
    independent: bool = False
    min_score: float = 0.3

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is out of range.
        """
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"--fps {self.fps} takes no frames. Choose a rate above 0, or none for every frame.")
        if self.window < 1 or not 0 <= self.overlap < self.window:
            raise ValueError(
                f"--window {self.window} and --overlap {self.overlap} do not get on. Choose a window of at least 1 "
                f"frame, and an overlap from 0 to less than that."
            )
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"--min-score {self.min_score} is no score. Choose 0 … 1.")

    def made_by(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def protocol(self, short_side: int) -> InferenceProtocol:
        """How one window is asked: all of its queries are kept, for the join to choose from."""
        keep = "chosen" if self.independent else "all"
        return InferenceProtocol(short_side=short_side, long_side=LONGEST * short_side, keep=keep)
