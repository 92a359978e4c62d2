"""Random colour changes of a frame: brightness, contrast, saturation, channel order (spec data.md §3, "Colour")."""

from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

CHANNEL_ORDERS = tuple(permutations(range(3)))
"""The six orders of the channels, identity first."""

_LEVELS = np.arange(256, dtype=np.float64)
_JUST_BELOW = 2**-12
"""Tolerance in levels: a value this little below a whole number counts as that number, given float32 precision."""


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour changes of one frame; None leaves a property unchanged.

    The order of contrast and saturation makes no difference, since both are linear and nothing is clipped between them.
    So it is not drawn.
    """

    brightness: float | None = None  # added, in 0…255
    contrast: float | None = None  # factor
    saturation: float | None = None  # factor on S of HSV
    channels: tuple[int, ...] = (0, 1, 2)  # source channel of each channel of the result


def draw_colour(rng: np.random.Generator) -> Colour:
    """Draws the published colour changes for one frame."""
    return Colour(
        brightness=rng.uniform(-32, 32) if rng.random() < 0.5 else None,
        contrast=rng.uniform(0.8, 1.2) if rng.random() < 0.5 else None,
        saturation=rng.uniform(0.8, 1.2) if rng.random() < 0.5 else None,
        channels=CHANNEL_ORDERS[rng.integers(6)] if rng.random() < 0.2 else (0, 1, 2),
    )


def apply_colour(image: UInt8[np.ndarray, "h w 3"], colour: Colour) -> UInt8[np.ndarray, "h w 3"]:
    """Changes the colours of an image; the result is clipped and truncated to 8 bits."""
    lit = _LEVELS if colour.brightness is None else np.clip(_LEVELS + colour.brightness, 0, 255)
    if colour.contrast is not None:
        lit = colour.contrast * lit
    if colour.saturation is not None:
        return cv2.merge(_saturated(image, lit, colour.saturation, colour.channels))
    if colour.brightness is not None or colour.contrast is not None:
        image = cv2.LUT(image, np.clip(lit, 0, 255).astype(np.uint8))
    return image if colour.channels == (0, 1, 2) else cv2.merge([cv2.split(image)[c] for c in colour.channels])


def _saturated(
    image: UInt8[np.ndarray, "h w 3"], lit: Float[np.ndarray, " 256"], factor: float, channels: tuple[int, ...]
) -> list[UInt8[np.ndarray, "h w"]]:
    """Returns the channels after a lookup in the table `lit`, with saturation multiplied by the factor.

    With hue and value fixed, a channel c of a pixel with largest channel v becomes v - f (v - c). The table is
    monotonic, so this is one table for c plus one for v.
    """
    planes = cv2.split(image)
    # OpenCV's addition rounds to nearest; subtracting 0.5 makes that a truncation.
    of_largest = ((1 - factor) * lit - 0.5 + _JUST_BELOW).astype(np.float32)
    largest = cv2.LUT(cv2.max(cv2.max(planes[0], planes[1]), planes[2]), of_largest)
    of_channel = (factor * lit).astype(np.float32)
    return [cv2.add(cv2.LUT(planes[c], of_channel), largest, dtype=cv2.CV_8U) for c in channels]
