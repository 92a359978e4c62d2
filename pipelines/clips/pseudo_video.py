"""Pseudo-videos: random copies of an image that make a clip (spec data.md §3, "RefCOCO clips with T>1").

The spec gives the ranges; the rest is our choice: the two colour changes are drawn from {first, second, both}; hue and
saturation change by the same number, both on a scale of 255; perspective moves each corner inwards; perspective,
rotation and shift are one warp, black outside the image; the blur comes last.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from sgmg.masks import Size

_PERSPECTIVE = 0.08  # largest move of a corner, as a fraction of a side
_SHIFT = 0.1  # largest shift, as a fraction of both sides
_ROTATION = 20.0  # degrees
_BLUR_KERNELS = (9, 11)  # pixels


@dataclass(frozen=True, slots=True)
class PseudoFrame:
    """Differences of one copy from the image."""

    corners: tuple[float, ...]  # x, y of the four corners, in sides inwards: upper left, upper right, lower right, left
    shift: float  # fraction of the width to the right, and of the height down
    rotation: float  # degrees, counter-clockwise
    brightness: int | None  # added, in 0…255
    hue_saturation: int | None  # added to both, on a scale of 255
    blur: tuple[int, float] | None  # length of the kernel in pixels, direction in degrees


def suits_copies(size: Size) -> bool:
    """Returns whether an image is used for copies: its shorter side has 200 pixels when the longer is scaled to 640.

    >>> suits_copies((480, 640)), suits_copies((150, 640))
    (True, False)
    """
    return min(size) * 640 >= 200 * max(size)


def draw_copy(rng: np.random.Generator) -> PseudoFrame:
    """Draws the parameters of one copy."""
    changes = rng.integers(3)  # brightness, hue and saturation, both
    return PseudoFrame(
        corners=tuple(rng.uniform(0, _PERSPECTIVE, size=8).tolist()),
        shift=rng.uniform(-_SHIFT, _SHIFT),
        rotation=rng.uniform(-_ROTATION, _ROTATION),
        brightness=int(rng.integers(-40, 40, endpoint=True)) if changes != 1 else None,
        hue_saturation=int(rng.integers(-5, 5, endpoint=True)) if changes != 0 else None,
        blur=(int(rng.choice(_BLUR_KERNELS)), rng.uniform(0, 360)) if rng.random() < 0.25 else None,
    )


def copy_image(image: UInt8[np.ndarray, "h w 3"], copy: PseudoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """Applies the parameters to an RGB image."""
    if copy.hue_saturation is not None:
        image = _shift_hue_saturation(image, copy.hue_saturation)
    if copy.brightness is not None:
        image = cv2.LUT(image, np.clip(np.arange(256) + copy.brightness, 0, 255).astype(np.uint8))
    size = image.shape[:2]
    image = cv2.warpPerspective(image, _warp(copy, size), size[::-1], flags=cv2.INTER_LINEAR)
    return image if copy.blur is None else cv2.filter2D(image, -1, _blur_kernel(*copy.blur))


def copy_mask(mask: Bool[np.ndarray, "h w"], copy: PseudoFrame) -> Bool[np.ndarray, "h w"]:
    """Applies the parameters to a mask: nearest neighbour, no object outside the image."""
    size = mask.shape
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    return cv2.warpPerspective(pixels, _warp(copy, size), size[::-1], flags=cv2.INTER_NEAREST).view(np.bool_)


def _warp(copy: PseudoFrame, size: Size) -> Float[np.ndarray, "3 3"]:
    """Returns the matrix from image to copy, in pixels: perspective, then rotation about the centre, then shift."""
    height, width = size
    inwards = np.array(copy.corners).reshape(4, 2) * [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    units = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    ends = np.array([width - 1, height - 1])
    # The part of the image within the moved corners fills the copy.
    perspective = cv2.getPerspectiveTransform(
        ((units + inwards) * ends).astype(np.float32), (units * ends).astype(np.float32)
    )
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), copy.rotation, 1)
    rotation[:, 2] += np.array([width, height]) * copy.shift
    return np.vstack([rotation, [0, 0, 1]]) @ perspective


def _shift_hue_saturation(image: UInt8[np.ndarray, "h w 3"], shift: int) -> UInt8[np.ndarray, "h w 3"]:
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))  # hue in 256 steps
    levels = np.arange(256)
    hue = cv2.LUT(hue, ((levels + shift) % 256).astype(np.uint8))
    saturation = cv2.LUT(saturation, np.clip(levels + shift, 0, 255).astype(np.uint8))
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB_FULL)


def _blur_kernel(length: int, direction: float) -> Float[np.ndarray, "{length} {length}"]:
    """Returns a line through the centre of the kernel; its weights sum to 1."""
    middle, reach = length // 2, (length - 1) / 2
    turned = math.radians(direction)
    x, y = math.cos(turned) * reach, math.sin(turned) * reach
    kernel = np.zeros((length, length), dtype=np.float32)
    cv2.line(kernel, (round(middle - x), round(middle + y)), (round(middle + x), round(middle - y)), 1.0)
    return kernel / kernel.sum()
