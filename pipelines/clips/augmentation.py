"""Augmentation recipes of training clips: the published ones, and the settings of a small one (spec data.md §3)."""

from dataclasses import dataclass
from typing import Literal, get_args

from pipelines.clips.geometry import GeometryRecipe, ResizeFilter, Sizes

Step = Literal["copy", "flip", "colour", "geometry"]
"""Transformations of a frame: random copy of the image, mirroring, change of colours, resizing and cropping."""

_EIGHT = Sizes((288, 320, 352, 392, 416, 448, 480, 512), 640)
_ENLARGED = Sizes((400, 500, 600))

STANDARD = GeometryRecipe(_EIGHT, _ENLARGED, _EIGHT)
"""Geometry of all clips."""
IMAGE = GeometryRecipe(
    Sizes(tuple(range(480, 769, 32)), 800), _ENLARGED, Sizes((296, 328, 360, 392, 416, 448, 480, 512), 640)
)
"""Geometry of RefCOCO pre-training."""
SMALL = GeometryRecipe(
    Sizes((96, 112, 128), 192), Sizes((112, 128, 144)), Sizes((96, 112, 128), 192), crop_side=(96, 160)
)
"""Geometry of the preset `tiny`; not published."""


@dataclass(frozen=True, slots=True)
class ClipRecipe:
    """Steps and settings, in order, that turn a sample into a clip of `length` frames.

    The classmethods return the published recipes; change them with `dataclasses.replace`.
    """

    length: int
    steps: tuple[Step, ...]
    geometry: GeometryRecipe = STANDARD
    reverse: float = 0.0  # probability that the frames run backwards
    flip: float = 0.5  # probability that all frames are mirrored
    anchor_only: bool = False  # only the anchor frame has a target
    annotated_boxes: bool = False  # boxes are the annotated ones if the source has them, else those of the masks
    redraws: int = 10  # draws for a sample without a valid frame before it is dropped, after the first
    resize: ResizeFilter = "torch"  # The published code uses Pillow; off by 1 of 255 in one value of 1 000, 3x as fast

    def __post_init__(self) -> None:
        if self.length < 1 or self.length == 2:
            raise ValueError(f"A clip of length={self.length} frames is not defined. Take 1, or 3 and more.")
        if unknown := set(self.steps).difference(get_args(Step)):
            raise ValueError(f"There is no step {', '.join(unknown)}. The steps are {', '.join(get_args(Step))}.")
        if len(set(self.steps)) < len(self.steps) or "geometry" not in self.steps:
            raise ValueError(f"steps={self.steps} must hold `geometry`, and each step once at most.")
        if "copy" in self.steps[1:]:
            raise ValueError(f"steps={self.steps}: the image is copied before anything else happens to the copies.")
        for name in ("reverse", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a probability, from 0 to 1.")
        if self.resize not in get_args(ResizeFilter):
            raise ValueError(f"resize={self.resize!r} is none of {', '.join(get_args(ResizeFilter))}.")
        if self.redraws < 0:
            raise ValueError(f"redraws={self.redraws} must be at least 0.")

    @classmethod
    def video(cls, length: int = 5, geometry: GeometryRecipe = STANDARD) -> "ClipRecipe":
        """Returns the recipe of Ref-YouTube-VOS: every frame has a target; three clips in ten run backwards."""
        return cls(length, ("geometry", "flip", "colour"), geometry, reverse=0.3)

    @classmethod
    def one_target_frame(cls, length: int = 5, geometry: GeometryRecipe = STANDARD) -> "ClipRecipe":
        """Returns the recipe of A2D: only the anchor has a target."""
        return cls(length, ("flip", "colour", "geometry"), geometry, anchor_only=True)

    @classmethod
    def image(cls, geometry: GeometryRecipe = IMAGE) -> "ClipRecipe":
        """Returns the recipe of RefCOCO pre-training: single images with their annotated boxes."""
        return cls(1, ("flip", "geometry"), geometry, annotated_boxes=True)

    @classmethod
    def pseudo_video(cls, length: int = 5, geometry: GeometryRecipe = STANDARD) -> "ClipRecipe":
        """Returns the recipe of RefCOCO in joint training: clips of random copies of an image."""
        return cls(length, ("copy", "flip", "colour", "geometry"), geometry)
