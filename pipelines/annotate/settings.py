"""The settings of annotation: which frames are decoded, in which windows, and which scores count as present."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipelines.inference.protocols import InferenceProtocol
from pipelines.video.defaults import LENGTH, OVERLAP
from sgmg.following import CONTEXT, MIN_SCORE

FormatName = Literal["parquet", "frames", "youtube-vis", "coco", "cvat", "png", "davis", "overlay", "report"]

DATASET = "videos"
WINDOWS_EACH = 8
"""Most windows of a stretch: few, so that workers share a long video and a killed run loses little; enough that
decoding from the key frame before the stretch costs little."""
SHARD_VIDEOS, SHARD_BYTES = 32, 128 * 2**20
"""Most short videos of a shard, and bytes of its frames, as the model sees them."""
CHUNK = 32
"""Videos that are planned by one task."""
LONGEST = 4
"""Longest side, as a multiple of the shorter one, that the model sees. Longer ones are shrunk: they would fill any
memory."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the predictions, beside videos, expressions and model.

    Attributes:
        fps: frames per second that are decoded; None decodes every frame.
        image_fps: images per second of folders; None takes the rate that the folder's name or EXIF tells, if any.
        window: frames encoded at once.
        overlap: frames that a window shares with the one before, where the join matches the object.
        shots: whether to detect cuts; no window then crosses one.
        independent: whether every window chooses its query by score alone, as the published inference does.
        min_score: score of a frame, from 0 to 1, below which its mask is empty.
        causal: whether each frame is answered from itself and the `CONTEXT` - 1 frames before it, and chooses its query
            by score and by agreement with the frame before, as `sgmg.streaming` does. Windows overlap by those frames.
    """

    fps: float | None = None
    window: int = LENGTH
    overlap: int = OVERLAP
    shots: bool = False
    independent: bool = False
    min_score: float = MIN_SCORE
    image_fps: float | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: a number is out of range.
        """
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"--fps must be above 0 (got {self.fps}). Leave it out to take every frame.")
        if self.image_fps is not None and not 0 < self.image_fps < float("inf"):
            raise ValueError(f"--image-fps must be above 0 (got {self.image_fps}). Leave it out if it is not known.")
        if self.causal and self.independent:
            raise ValueError("--causal and --independent-windows exclude each other: leave one of them out.")
        if self.causal and self.overlap != CONTEXT - 1:
            raise ValueError(
                f"--causal answers each frame from {CONTEXT - 1} frames before it, by which its windows overlap (got "
                f"--overlap {self.overlap}): leave --overlap out."
            )
        if self.causal and self.window < CONTEXT:
            raise ValueError(f"--window must be {CONTEXT} or more with --causal (got {self.window}).")
        if self.window < 1:
            raise ValueError(f"--window must be 1 or more (got {self.window}).")
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                f"--overlap ({self.overlap}) must be smaller than --window ({self.window}), and 0 or more."
            )
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"--min-score must be between 0 and 1 (got {self.min_score}).")

    def provenance(self) -> dict[str, Any]:
        """Returns the settings as plain values, for config.json and the fingerprint."""
        values = asdict(self)
        for added in ("image_fps", "causal"):  # folders that were annotated before they existed go on
            if not values[added]:
                del values[added]
        return values

    def protocol(self, short_side: int) -> InferenceProtocol:
        """Returns the protocol of a window."""
        protocol = InferenceProtocol(short_side=short_side, long_side=LONGEST * short_side)
        return replace(protocol, keep="all", context=CONTEXT, causal=True) if self.causal else protocol

    @property
    def follows(self) -> bool:
        """Whether a window that shares frames with the one before may choose another query than its best."""
        return self.overlap > 0 and not self.independent
