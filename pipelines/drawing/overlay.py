"""Masks drawn on frames: one colour per expression, the truth as an outline, sentences below the picture."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from pipelines.drawing.text import broken_lines, font_of

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (230, 57, 70),
    (46, 134, 222),
    (34, 177, 76),
    (255, 159, 28),
    (155, 89, 182),
    (0, 188, 212),
    (255, 105, 180),
    (141, 110, 99),
)
"""Red, green, blue, 0 to 255, easy to tell apart side by side; `colour_of` has more."""

TRUTH_COLOUR: Colour = (255, 255, 255)
"""Colour of the outline of a true mask."""

_TINT = 0.5
_DIM = 0.45  # brightness outside the mask
_GOLDEN = (3 - 5**0.5) / 2  # of a full circle
_PAPER, _INK = (24, 24, 24), (240, 240, 240)


def colour_of(number: int) -> Colour:
    """Returns the colour of an expression by its index among those drawn together; all differ."""
    if number < len(COLOURS):
        return COLOURS[number]
    # Steps of the golden angle never repeat a hue, and neighbours are far apart.
    hue = number * _GOLDEN % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 0.65 + 0.3 * (number % 3) / 2)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_masks(
    frame: UInt8[np.ndarray, "h w 3"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    truths: Sequence[Bool[np.ndarray, "h w"]] = (),
) -> UInt8[np.ndarray, "h w 3"]:
    """Copies the frame with each mask tinted and edged in its colour, and each truth outlined in white.

    Raises:
        ValueError: a mask has another size than the frame.
    """
    drawn = frame.copy()
    for mask in (*masks, *truths):
        if mask.shape != frame.shape[:2]:
            raise ValueError(f"A mask of height, width {mask.shape} does not fit a frame of {frame.shape[:2]}.")
    for number, mask in enumerate(masks):
        colour = np.array(colour_of(number))
        drawn[mask] = (drawn[mask] * (1 - _TINT) + colour * _TINT).astype(np.uint8)
        _outline(drawn, mask, colour_of(number), 1)
    _outline_truths(drawn, truths)
    return drawn


def spotlight(
    frame: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Copies the frame darkened outside the mask, so that the object keeps the colours that a sentence may name.

    The mask is edged in the first colour, the truth outlined in white.

    Raises:
        ValueError: a mask has another size than the frame.
    """
    if mask.shape != frame.shape[:2] or truth.shape != frame.shape[:2]:
        raise ValueError(f"Masks of {mask.shape} and {truth.shape} do not both fit a frame of {frame.shape[:2]}.")
    drawn = np.where(mask[..., None], frame, (frame * _DIM).astype(np.uint8))
    _outline(drawn, mask, colour_of(0), 2)
    _outline_truths(drawn, [truth])
    return drawn


def legend(lines: Sequence[tuple[str, Colour | None]], width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draws a strip of text `width` pixels wide: each line with a square of its colour, long lines broken.

    The height depends only on lines and width, so one strip fits all frames of a video.
    """
    text_height = int(np.clip(width // 40, 10, 28))
    font = font_of(text_height)
    margin, square = max(2, text_height // 3), text_height
    broken: list[tuple[str, Colour | None]] = []
    for text, colour in lines:
        room = width - 2 * margin - (square + margin if colour else 0)
        first, *rest = broken_lines(text, font, room)
        broken += [(first, colour), *((one, None) for one in rest)]
    step = text_height + margin
    strip = Image.new("RGB", (width, margin + step * len(broken)), _PAPER)
    draw = ImageDraw.Draw(strip)
    for place, (text, colour) in enumerate(broken):
        top = margin + place * step
        if colour:
            draw.rectangle((margin, top, margin + square - 1, top + square - 1), fill=colour)
        indent = margin + (square + margin if any(one for _, one in lines) else 0)
        draw.text((indent, top + text_height / 2), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(strip)


def overlay(
    frame: UInt8[np.ndarray, "h w 3"],
    masks: Sequence[Bool[np.ndarray, "h w"]],
    texts: Sequence[str],
    truths: Sequence[Bool[np.ndarray, "h w"]] = (),
) -> UInt8[np.ndarray, "height w 3"]:
    """Draws the masks of the expressions on a frame, and their texts below it in the masks' colours.

    Raises:
        ValueError: the number of texts and masks differs, or a mask has another size.
    """
    if len(texts) != len(masks):
        raise ValueError(f"{len(masks)} masks have {len(texts)} texts. Give one a mask.")
    lines = [(text, colour_of(number)) for number, text in enumerate(texts)]
    return np.concatenate([draw_masks(frame, masks, truths), legend(lines, frame.shape[1])])


def frame_strip(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    lines: Sequence[tuple[str, Colour | None]],
    columns: int = 2,
    width: int = 960,
) -> UInt8[np.ndarray, "height width 3"]:
    """Puts drawn frames of one size side by side, `width` pixels in all, above lines of text.

    Raises:
        ValueError: no frames are given.
    """
    if not frames:
        raise ValueError("A contact sheet needs at least one frame.")
    columns = min(columns, len(frames))
    h, w = frames[0].shape[:2]
    cell = (max(1, width // columns), max(1, round(h * (width // columns) / w)))
    method = cv2.INTER_AREA if cell[0] < w else cv2.INTER_LINEAR
    cells = [cv2.resize(np.ascontiguousarray(frame), cell, interpolation=method) for frame in frames]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    sheet = rearrange(np.stack(cells), "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    return np.concatenate([sheet, legend(lines, sheet.shape[1])])


def _outline_truths(drawn: np.ndarray, truths: Sequence[np.ndarray]) -> None:
    for truth in truths:
        _outline(drawn, truth, (0, 0, 0), 3)  # so that white is visible on white
        _outline(drawn, truth, TRUTH_COLOUR, 1)


def _outline(drawn: np.ndarray, mask: np.ndarray, colour: Colour, thickness: int) -> None:
    contours, _ = cv2.findContours(np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, colour, thickness)
