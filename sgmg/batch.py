"""Inputs, targets, features and outputs of the model, as frozen dataclasses of tensors.

Axes: b clips, e expressions, t frames, q queries, c channels, h w pixels or cells, n words, l decoder layers.
A padding mask is True where padded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

MovableT = TypeVar("MovableT", bound="Movable")


class Movable:
    """A frozen dataclass of tensors (alone or in tuples) that moves between devices as one."""

    __slots__ = ()

    def to(self: MovableT, device: torch.device | str, *, non_blocking: bool = False) -> MovableT:
        """Returns a copy with all tensors on `device`; tensors already on it are shared, not copied."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pinned(self: MovableT) -> MovableT:
        """Returns a copy in page-locked memory, from which a GPU can copy while it computes."""
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
    """b clips of t frames, padded to one size, and e expressions about them: the whole input of the model."""

    frames: Float[Tensor, "b t 3 h w"] | UInt8[Tensor, "b t 3 h w"]  # normalized, or RGB bytes
    padding: Bool[Tensor, "b h w"]
    sizes: Int[Tensor, "b 2"]  # height, width before padding
    token_ids: Int[Tensor, "e n"]
    token_padding: Bool[Tensor, "e n"]
    clip_of: Int[Tensor, " e"]  # the clip each expression is about
    target_frame: Int[Tensor, " b"] | None = None  # A2D, JHMDB: the one frame of the clip that is segmented


@dataclass(frozen=True, slots=True)
class ClipTargets(Movable):
    """Ground truth of the e expressions of a `ClipBatch`, padded like its frames; t is 1 if `target_frame` is set."""

    masks: Bool[Tensor, "e t h w"]
    boxes: Float[Tensor, "e t 4"]  # cxcywh in units of the unpadded frame; zeros where not valid
    valid: Bool[Tensor, "e t"]  # the object is in the frame
    weight: Float[Tensor, " e"]  # 0 for the placeholder of a dropped sample, which adds nothing to the loss; else 1


@dataclass(frozen=True, slots=True)
class VideoFeatures(Movable):
    """Features of b clips, independent of any expression: levels 8, 16, 32, 64 and details for the mask refinement.

    `t` is the number of frames to segment: 1 if `ClipBatch.target_frame` is set.
    """

    levels: tuple[Float[Tensor, "b t c _ _"], ...]  # projected and filtered
    paddings: tuple[Bool[Tensor, "b _ _"], ...]
    positions: tuple[Float[Tensor, "b c _ _"], ...]
    attenuations: tuple[Float[Tensor, "_ _"], ...]  # the Gaussian of each level's spectrum filters
    details: tuple[Float[Tensor, "b t p _ _"], ...]  # from the features at 1/4 and 1/8, for the mask refinement

    def frames(self, selection: slice) -> "VideoFeatures":
        """Returns the features of some frames; after the backbone, frames are independent."""
        return replace(
            self,
            levels=tuple(level[:, selection] for level in self.levels),
            details=tuple(detail[:, selection] for detail in self.details),
        )

    def clip(self, number: int) -> "VideoFeatures":
        """Returns the features of one of the clips."""
        one = slice(number, number + 1)
        return replace(
            self,
            levels=tuple(level[one] for level in self.levels),
            paddings=tuple(padding[one] for padding in self.paddings),
            positions=tuple(position[one] for position in self.positions),
            details=tuple(detail[one] for detail in self.details),
        )


@dataclass(frozen=True, slots=True)
class TextFeatures(Movable):
    """Features of e expressions, at the width of the model."""

    words: Float[Tensor, "e n c"]
    positions: Float[Tensor, "e n c"]
    padding: Bool[Tensor, "e n"]
    sentence_feature: Float[Tensor, "e c"]

    def expressions(self, selection: slice) -> "TextFeatures":
        """Returns the features of some expressions."""
        return TextFeatures(
            self.words[selection], self.positions[selection], self.padding[selection], self.sentence_feature[selection]
        )


@dataclass(frozen=True, slots=True)
class ClipOutput(Movable):
    """Predictions for e expressions: l is every decoder layer in training, and only the last at inference."""

    scores: Float[Tensor, "l e t q"]  # logits
    boxes: Float[Tensor, "l e t q 4"]  # cxcywh in units of the unpadded frame
    reference_points: Float[Tensor, "l e t q 2"]  # xy of the reference point each layer starts from
    patch_masks: Float[Tensor, "l e t q p _ _"]  # p=16 channels at 1/8: a 4x4 patch of the mask at 1/2 in each cell
    clip_of: Int[Tensor, " e"]

    def frames(self, selection: slice) -> "ClipOutput":
        """Returns the predictions for some frames."""
        tensors = (self.scores, self.boxes, self.reference_points, self.patch_masks)
        scores, boxes, reference_points, masks = (tensor[:, :, selection] for tensor in tensors)
        return ClipOutput(scores, boxes, reference_points, masks, self.clip_of)

    @classmethod
    def joined(cls, parts: Sequence["ClipOutput"]) -> "ClipOutput":
        """Joins outputs for consecutive frames of the same clips and expressions along t."""
        scores, boxes, reference_points, masks = (
            torch.cat([getattr(part, name) for part in parts], dim=2)
            for name in ("scores", "boxes", "reference_points", "patch_masks")
        )
        return cls(scores, boxes, reference_points, masks, parts[0].clip_of)
