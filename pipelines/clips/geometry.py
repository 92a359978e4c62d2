"""Resizing, cropping and mirroring of a clip: of frames, masks and boxes (spec data.md §3, "Geometry")."""

import re
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from pipelines.clips.resize_filter import ResizeFilter
from pipelines.images import nearest_pixels
from sgmg.masks import Size
from sgmg.resize import pillow_resized, resized_size


@dataclass(frozen=True, slots=True)
class Sizes:
    """Short sides in pixels, one of which is drawn, and the largest long side: R(one of …, cap)."""

    short_sides: tuple[int, ...]
    cap: int | None = None

    def __post_init__(self) -> None:
        if not self.short_sides or min(self.short_sides) < 1 or (self.cap is not None and self.cap < 1):
            raise ValueError(f"{self} has no size to draw. Give at least one short side, in pixels.")

    def draw(self, size: Size, rng: np.random.Generator) -> Size:
        """Draws the height and width to which a frame is resized."""
        return resized_size(*size, self.short_sides[rng.integers(len(self.short_sides))], self.cap)


@dataclass(frozen=True, slots=True)
class GeometryRecipe:
    """Resizes directly, or, for the share `crop` of clips, enlarges, crops and resizes."""

    at_once: Sizes
    enlarged: Sizes
    cropped: Sizes
    crop_side: tuple[int, int] = (384, 600)  # smallest and largest width and height of a crop in pixels
    crop: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.crop <= 1:
            raise ValueError(f"crop={self.crop} is a probability, from 0 to 1.")
        fewest, most = self.crop_side
        if not 0 < fewest <= min(most, *self.enlarged.short_sides) or self.enlarged.cap is not None:
            raise ValueError(
                f"Crops of {fewest} to {most} pixels a side do not fit into frames enlarged to {self.enlarged}. "
                f"Let no short side be under {fewest} pixels, and set no cap there."
            )


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of the enlarged frame, in its pixels."""

    enlarged: Size
    top: int
    left: int
    size: Size


@dataclass(frozen=True, slots=True)
class Geometry:
    """Transformation from a frame as stored to its final size."""

    source: Size
    crop: Crop | None
    size: Size


def draw_geometry(recipe: GeometryRecipe, source: Size, rng: np.random.Generator) -> Geometry:
    """Draws one geometry, for all frames of a clip."""
    if rng.random() < 1 - recipe.crop:
        return Geometry(source, None, recipe.at_once.draw(source, rng))
    enlarged = recipe.enlarged.draw(source, rng)
    fewest, most = recipe.crop_side
    width = int(rng.integers(fewest, min(enlarged[1], most), endpoint=True))
    height = int(rng.integers(fewest, min(enlarged[0], most), endpoint=True))
    top = int(rng.integers(enlarged[0] - height, endpoint=True))
    left = int(rng.integers(enlarged[1] - width, endpoint=True))
    crop = Crop(enlarged, top, left, (height, width))
    return Geometry(source, crop, recipe.cropped.draw(crop.size, rng))


def resize_image(image: UInt8[np.ndarray, "h w 3"], size: Size, kind: ResizeFilter) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resizes an image to another height and width, with antialiasing."""
    if image.shape[:2] == size:
        return image
    if kind == "pillow":
        return np.asarray(pillow_resized(Image.fromarray(image), *size))
    # With these strides, channels last for a whole batch, torch uses a path that is twice as fast.
    pixels = rearrange(torch.from_numpy(image)[None], "b h w c -> b c h w")
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return rearrange(resized, "1 c h w -> h w c").numpy()


def transform_image(
    image: UInt8[np.ndarray, "h w 3"], geometry: Geometry, kind: ResizeFilter
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Brings a frame to its final size."""
    if (crop := geometry.crop) is None:
        return resize_image(image, geometry.size, kind)
    if kind == "pillow":
        part = _enlarged_and_cropped(Image.fromarray(image), crop)
        return np.asarray(pillow_resized(part, *geometry.size))
    enlarged = resize_image(image, crop.enlarged, kind)
    part = enlarged[crop.top : crop.top + crop.size[0], crop.left : crop.left + crop.size[1]]
    return resize_image(part, geometry.size, kind)


def _enlarged_and_cropped(image: Image.Image, crop: Crop) -> Image.Image:
    """Returns exactly the crop of the enlarged image; removes columns outside the crop before resizing the rows.

    Pillow's own `box` would do even less work, but it computes in float32, which changes some roundings.
    """
    height, width = crop.size
    rows = image.resize((crop.enlarged[1], image.height), Image.Resampling.BILINEAR)
    part = rows.crop((crop.left, 0, crop.left + width, image.height))
    columns = part.resize((width, crop.enlarged[0]), Image.Resampling.BILINEAR)
    return columns.crop((0, crop.top, width, crop.top + height))


def transform_mask(mask: Bool[np.ndarray, "h w"], geometry: Geometry) -> Bool[np.ndarray, "h2 w2"]:
    """Brings a mask to its final size by nearest neighbour, with one lookup in the source per pixel."""
    rows, columns = (_source_pixels(geometry, axis) for axis in (0, 1))
    # Gathers whole rows, then whole columns as rows: gathering single pixels takes four times as long.
    columns_first = cv2.transpose(mask[rows].view(np.uint8))
    return cv2.transpose(columns_first[columns]).view(np.bool_)


def _source_pixels(geometry: Geometry, axis: int) -> Int[np.ndarray, " n"]:
    """Returns, for each row (axis 0) or column (axis 1) of the result, the row or column of the source."""
    crop = geometry.crop
    if crop is None:
        return nearest_pixels(geometry.source[axis], geometry.size[axis])
    enlarged = nearest_pixels(geometry.source[axis], crop.enlarged[axis])
    return enlarged[(crop.top, crop.left)[axis] + nearest_pixels(crop.size[axis], geometry.size[axis])]


def transform_boxes(boxes: Float[np.ndarray, "t 4"], geometry: Geometry) -> Float[np.ndarray, "t 4"]:
    """Applies the geometry to boxes xyxy in pixels; a box outside the crop loses its area."""
    if (crop := geometry.crop) is None:
        return boxes * _ratios(geometry.source, geometry.size)
    corner = np.array([crop.left, crop.top] * 2, dtype=np.float32)
    limit = np.array(crop.size[::-1] * 2, dtype=np.float32)
    inside = np.maximum(np.minimum(boxes * _ratios(geometry.source, crop.enlarged) - corner, limit), 0)
    return inside * _ratios(crop.size, geometry.size)


def _ratios(before: Size, after: Size) -> Float[np.ndarray, " 4"]:
    height, width = after[0] / before[0], after[1] / before[1]
    return np.array([width, height, width, height], dtype=np.float32)


def have_area(boxes: Float[np.ndarray, "t 4"]) -> Bool[np.ndarray, " t"]:
    """Returns which boxes xyxy are valid. Objects of one row or column have no area: boxes end on the last pixel."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def mirror_boxes(boxes: Float[np.ndarray, "t 4"], width: int) -> Float[np.ndarray, "t 4"]:
    """Mirrors boxes xyxy of frames with this width, exchanging left and right: x ← width - x.

    >>> mirror_boxes(np.array([[1.0, 2.0, 4.0, 5.0]]), 10).tolist()
    [[6.0, 2.0, 9.0, 5.0]]
    """
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=-1)


def mirror_text(text: str) -> str:
    """Returns the sentence for the mirrored clip: the whole words left and right are exchanged.

    >>> mirror_text("Left one of the bright dogs, right-most")
    'Right one of the bright dogs, left-most'
    """
    return re.sub(r"\b(?:left|right)\b", lambda found: _other_side(found[0]), text, flags=re.IGNORECASE)


def _other_side(word: str) -> str:
    other = "right" if word.lower() == "left" else "left"
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
