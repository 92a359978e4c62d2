"""What crosses the boundaries of the model. Frozen: nobody edits these in place.

Axes: b clips, e expressions, t frames, q queries, c channels, h w pixels or cells, n words, l decoder layers.
A padding mask is True where padded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MovableT = TypeVar("MovableT", bound="Movable")


class Movable:
    """A frozen dataclass of tensors (alone or in tuples) that moves between devices as one."""

    __slots__ = ()

    def to(self: MovableT, device: torch.device | str, *, non_blocking: bool = False) -> MovableT:
        """The same with all tensors on `device`; those that are there already are shared, not copied."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self: MovableT) -> MovableT:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self: MovableT, change: Callable[[Tensor], Tensor]) -> MovableT:
        def changed(value: object) -> object:
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, tuple):
                return tuple(changed(item) for item in value)
            return value

        return type(self)(*(changed(getattr(self, field.name)) for field in fields(self)))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class ClipBatch(Movable):
    """b clips of t frames, padded to one size, and the e expressions asked of them. All the model ever sees."""

    frames: Float[Tensor, "b t 3 h w"]
    padding: Bool[Tensor, "b h w"]
    sizes: Int[Tensor, "b 2"]  # height, width before padding
    token_ids: Int[Tensor, "e n"]
    token_padding: Bool[Tensor, "e n"]
    clip_of: Int[Tensor, " e"]  # the clip each expression is about
    target_frame: Int[Tensor, " b"] | None = None  # A2D, JHMDB: the one frame of the clip that is segmented


@dataclass(frozen=True, slots=True)
class ClipTargets(Movable):
    """What the e expressions of a `ClipBatch` should give, padded like its frames (t is 1 where one frame is asked)."""

    masks: Bool[Tensor, "e t h w"]
    boxes: Float[Tensor, "e t 4"]  # cxcywh in units of the unpadded frame; zeros where not valid
    valid: Bool[Tensor, "e t"]  # the object is in the frame
    weight: Float[Tensor, " e"]  # 0 keeps the slot of a dropped sample without teaching anything, else 1


@dataclass(frozen=True, slots=True)
class VideoFeatures(Movable):
    """What `encode_video` knows of b clips before any sentence: levels 8, 16, 32, 64 and the finer details.

    `t` is the number of frames that are segmented: 1 where one frame of each clip is asked.
    """

    levels: tuple[Float[Tensor, "b t c _ _"], ...]  # projected and filtered
    paddings: tuple[Bool[Tensor, "b _ _"], ...]
    positions: tuple[Float[Tensor, "b c _ _"], ...]
    attenuations: tuple[Float[Tensor, "_ _"], ...]  # the Gaussian of each level's spectrum filters
    details: tuple[Float[Tensor, "b t p _ _"], ...]  # what features of 1/4 and 1/8 bring to the mask refinement

    def frames(self, wanted: slice) -> "VideoFeatures":
        """Some of the frames: behind the backbone each frame stands for itself."""
        return replace(
            self,
            levels=tuple(level[:, wanted] for level in self.levels),
            details=tuple(detail[:, wanted] for detail in self.details),
        )


@dataclass(frozen=True, slots=True)
class TextFeatures(Movable):
    """e expressions at the width of the model."""

    words: Float[Tensor, "e n c"]
    positions: Float[Tensor, "e n c"]
    padding: Bool[Tensor, "e n"]
    sentence_feature: Float[Tensor, "e c"]

    def expressions(self, wanted: slice) -> "TextFeatures":
        """Some of the expressions."""
        return TextFeatures(
            self.words[wanted], self.positions[wanted], self.padding[wanted], self.sentence_feature[wanted]
        )


@dataclass(frozen=True, slots=True)
class ClipOutput(Movable):
    """Predictions for e expressions: l is every decoder layer in training, and only the last at inference."""

    scores: Float[Tensor, "l e t q"]  # logits
    boxes: Float[Tensor, "l e t q 4"]  # cxcywh in units of the unpadded frame
    reference_points: Float[Tensor, "l e t q 2"]  # xy of the reference point each layer starts from
    patch_masks: Float[Tensor, "l e t q p _ _"]  # p=16 channels at 1/8: a 4x4 patch of the mask at 1/2 in each cell
    clip_of: Int[Tensor, " e"]

    def frames(self, wanted: slice) -> "ClipOutput":
        """Some of the frames."""
        tensors = (self.scores, self.boxes, self.reference_points, self.patch_masks)
        scores, boxes, reference_points, masks = (tensor[:, :, wanted] for tensor in tensors)
        return ClipOutput(scores, boxes, reference_points, masks, self.clip_of)

    @classmethod
    def joined(cls, parts: Sequence["ClipOutput"]) -> "ClipOutput":
        """Outputs for consecutive frames of the same clips and expressions, as one."""
        scores, boxes, reference_points, masks = (
            torch.cat([getattr(part, name) for part in parts], dim=2)
            for name in ("scores", "boxes", "reference_points", "patch_masks")
        )
        return cls(scores, boxes, reference_points, masks, parts[0].clip_of)
