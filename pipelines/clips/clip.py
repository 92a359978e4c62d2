"""Training clips: parameters are sampled from boxes before any pixel is decoded, then applied (spec data.md §3).

`sample_params` needs no frames, so that a reader sends only the frames that a clip uses; `apply_params` makes the clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipelines.clips.augmentation import ClipRecipe, Step
from pipelines.clips.colour import Colour, apply_colour, draw_colour
from pipelines.clips.geometry import (
    Geometry,
    ResizeFilter,
    draw_geometry,
    have_area,
    mirror_boxes,
    mirror_text,
    transform_boxes,
    transform_image,
    transform_mask,
)
from pipelines.clips.pseudo_video import PseudoFrame, copy_image, copy_mask, draw_copy
from pipelines.clips.sampling import training_frames
from pipelines.images import decode_image
from sgmg.masks import Size, mask_to_xyxy, rle_to_mask, rle_to_xyxy

Box = Sequence[float]
"""x1, y1, x2, y2 in pixels."""

_OWN_TO_FRAME: tuple[Step, ...] = ("copy", "colour")
"""Steps that differ between equal frames of a clip; the steps before the first of them run once for equal frames."""


@dataclass(frozen=True, slots=True)
class ClipSample:
    """One sentence at one anchor frame, with the track of its object over the whole video (or the single image)."""

    text: str
    anchor: int
    size: Size  # of the video's frames
    rles: Sequence[str | None]  # one per frame; None if not annotated
    boxes: Sequence[Box | None] | None = None  # annotated boxes, if the source has them


@dataclass(frozen=True, slots=True)
class ClipParams:
    """All random decisions for a clip, and the resulting boxes."""

    steps: tuple[Step, ...]
    resize: ResizeFilter
    frames: tuple[int, ...]  # of the video, in the order of the clip
    target_frame: int | None  # index in the clip of the only frame with a target; None if all have one
    flip: bool
    geometry: Geometry
    colours: tuple[Colour, ...]  # one per frame, or empty
    copies: tuple[PseudoFrame | None, ...]  # one per frame (None is the image itself), or empty
    text: str
    boxes: tuple[tuple[float, float, float, float], ...]  # xyxy in pixels, one per target; zeros if not valid
    valid: tuple[bool, ...]  # one per target
    redraws: int  # previous draws, none of which had a valid frame

    @property
    def distinct(self) -> tuple[int, ...]:
        """Indices, in the video, of the frames that `apply_params` needs, sorted."""
        return tuple(sorted(set(self.frames)))

    @property
    def targets(self) -> tuple[int, ...]:
        """Indices, in the clip, of the frames that have a target."""
        return tuple(range(len(self.frames))) if self.target_frame is None else (self.target_frame,)


@dataclass(frozen=True, slots=True)
class Target:
    """Ground truth of one sentence in k frames of a clip."""

    text: str
    masks: Bool[np.ndarray, "k h w"]
    boxes: Float[np.ndarray, "k 4"]  # xyxy in pixels; zeros where not valid
    valid: Bool[np.ndarray, " k"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One augmented clip: t frames, and targets for k of them (k = t, or 1 if `target_frame` is set)."""

    frames: UInt8[np.ndarray, "t h w 3"]  # RGB
    masks: Bool[np.ndarray, "k h w"]
    boxes: Float[np.ndarray, "k 4"]  # xyxy in pixels; zeros where not valid
    valid: Bool[np.ndarray, " k"]
    text: str
    target_frame: int | None
    sibling_samples: tuple[Target, ...] = ()  # of other sentences for the same frames

    @property
    def targets(self) -> tuple[Target, ...]:
        """Targets of all its sentences, its own first."""
        return (Target(self.text, self.masks, self.boxes, self.valid), *self.sibling_samples)


def sample_params(recipe: ClipRecipe, sample: ClipSample, rng: np.random.Generator) -> ClipParams | None:
    """Samples the parameters of a clip, or returns None if the object is in no frame after `recipe.redraws` redraws.

    Raises:
        ValueError: a frame that needs a target is not annotated, or the anchor is not in the video.
    """
    for redraws in range(recipe.redraws + 1):
        drawn = _draw_once(recipe, sample, redraws, rng)
        if any(drawn.valid):
            return drawn
    return None


def _draw_once(recipe: ClipRecipe, sample: ClipSample, redraws: int, rng: np.random.Generator) -> ClipParams:
    frames, copies = _draw_frames(recipe, sample, rng)
    drawn = ClipParams(
        steps=recipe.steps,
        resize=recipe.resize,
        frames=frames,
        target_frame=frames.index(sample.anchor) if recipe.anchor_only else None,
        flip=rng.random() < recipe.flip,
        geometry=draw_geometry(recipe.geometry, sample.size, rng),
        colours=tuple(draw_colour(rng) for _ in frames) if "colour" in recipe.steps else (),
        copies=copies,
        text="",
        boxes=(),
        valid=(),
        redraws=redraws,
    )
    return _with_target(drawn, recipe, sample)


def _with_target(drawn: ClipParams, recipe: ClipRecipe, sample: ClipSample) -> ClipParams:
    """Returns the parameters with the sentence of the sample, and with the boxes of its object after all steps."""
    boxes = _boxes(recipe, sample, tuple(drawn.frames[place] for place in drawn.targets), drawn.copies)
    width = sample.size[1]
    for step in recipe.steps:
        if step == "flip" and drawn.flip:
            boxes = mirror_boxes(boxes, width)
        elif step == "geometry":
            boxes, width = transform_boxes(boxes, drawn.geometry), drawn.geometry.size[1]
    valid = have_area(boxes)
    return replace(
        drawn,
        text=mirror_text(sample.text) if drawn.flip else sample.text,
        boxes=tuple(map(tuple, np.where(valid[:, None], boxes, 0).tolist())),
        valid=tuple(valid.tolist()),
    )


def retarget(drawn: ClipParams, recipe: ClipRecipe, sample: ClipSample) -> ClipParams | None:
    """Returns the same clip with the target of another sentence; None if its object is in none of the frames.

    Raises:
        ValueError: a frame that needs a target is not annotated.
    """
    retargeted = _with_target(drawn, recipe, sample)
    return retargeted if any(retargeted.valid) else None


def _draw_frames(
    recipe: ClipRecipe, sample: ClipSample, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[PseudoFrame | None, ...]]:
    """Draws the frames of the video that make the clip, and which of them are copies of the single image."""
    if "copy" in recipe.steps:
        copies = (None, *(draw_copy(rng) for _ in range(recipe.length - 1)))
        return (sample.anchor,) * recipe.length, tuple(copies[place] for place in rng.permutation(recipe.length))
    frames = training_frames(sample.anchor, len(sample.rles), recipe.length, rng)
    return frames[::-1] if rng.random() < recipe.reverse else frames, ()


def _boxes(
    recipe: ClipRecipe, sample: ClipSample, frames: tuple[int, ...], copies: tuple[PseudoFrame | None, ...]
) -> Float[np.ndarray, "k 4"]:
    """Returns the boxes of the targets in the frames as stored."""
    if copies:
        mask = rle_to_mask(_annotation(sample, sample.anchor), sample.size)
        masks = np.stack([mask if copy is None else copy_mask(mask, copy) for copy in copies])
        return mask_to_xyxy(masks).astype(np.float32)
    given = sample.boxes if recipe.annotated_boxes and sample.boxes is not None else (None,) * len(sample.rles)
    found = {
        frame: rle_to_xyxy(_annotation(sample, frame), sample.size) if (box := given[frame]) is None else box
        for frame in set(frames)
    }
    return np.array([found[frame] for frame in frames], dtype=np.float32)


def _annotation(sample: ClipSample, frame: int) -> str:
    if (rle := sample.rles[frame]) is None:
        raise ValueError(
            f"Frame {frame} (from 0) has no annotation for {sample.text!r}, but a clip needs it there. "
            f"Give only the annotated frames, or use a recipe that needs a target only at the anchor."
        )
    return rle


def apply_params(
    drawn: ClipParams,
    frames: Sequence[bytes],
    rles: Sequence[str | None],
    siblings: Sequence[tuple[ClipParams, Sequence[str | None]]] = (),
) -> Clip:
    """Makes the clip from the encoded frames `drawn.distinct` and the object's RLE in each of them.

    Raises:
        ValueError: the number of frames or RLEs is wrong, or one is damaged or has another size.

    Args:
        siblings: results of `retarget` for other sentences, with the RLEs of their objects.
    """
    if not len(drawn.distinct) == len(frames) == len(rles):
        raise ValueError(
            f"{len(frames)} frames and {len(rles)} RLEs were given for frames {drawn.distinct} of the video. "
            f"Give one of both for each."
        )
    size = drawn.geometry.source
    own = next((place for place, step in enumerate(drawn.steps) if step in _OWN_TO_FRAME), len(drawn.steps))
    images = np.empty((len(drawn.frames), *drawn.geometry.size, 3), dtype=np.uint8)
    for frame, data in zip(drawn.distinct, frames, strict=True):
        shared = _image(drawn, drawn.steps[:own], 0, decode_image(data, size))
        for place in (place for place, at in enumerate(drawn.frames) if at == frame):
            images[place] = _image(drawn, drawn.steps[own:], place, shared)
    own_target = make_target(drawn, rles)
    return Clip(
        images, own_target.masks, own_target.boxes, own_target.valid, own_target.text, drawn.target_frame,
        tuple(make_target(one, track) for one, track in siblings),
    )  # fmt: skip


def make_target(drawn: ClipParams, rles: Sequence[str | None]) -> Target:
    """Returns the ground truth of a sentence from its object's RLE in each of the frames `drawn.distinct`."""
    masks = np.empty((len(drawn.targets), *drawn.geometry.size), dtype=np.bool_)
    track = dict(zip(drawn.distinct, rles, strict=True))
    for mask, place in zip(masks, drawn.targets, strict=True):
        mask[:] = _mask(drawn, place, track[drawn.frames[place]])
    return Target(drawn.text, masks, np.array(drawn.boxes, dtype=np.float32), np.array(drawn.valid))


def _image(
    drawn: ClipParams, steps: tuple[Step, ...], place: int, image: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Applies some of the steps to an image."""
    for step in steps:
        if step == "geometry":
            image = transform_image(image, drawn.geometry, drawn.resize)
        elif step == "colour":
            image = apply_colour(image, drawn.colours[place])
        elif step == "copy" and (copy := drawn.copies[place]) is not None:
            image = copy_image(image, copy)
        elif step == "flip" and drawn.flip:
            image = cv2.flip(image, 1)
    return image


def _mask(drawn: ClipParams, place: int, rle: str | None) -> Bool[np.ndarray, "h w"]:
    """Returns the mask of one target after all steps."""
    mask = np.zeros(drawn.geometry.source, dtype=np.bool_) if rle is None else rle_to_mask(rle, drawn.geometry.source)
    for step in drawn.steps:
        if step == "geometry":
            mask = transform_mask(mask, drawn.geometry)
        elif step == "copy" and (copy := drawn.copies[place]) is not None:
            mask = copy_mask(mask, copy)
        elif step == "flip" and drawn.flip:
            mask = cv2.flip(mask.view(np.uint8), 1).view(np.bool_)
    return mask
