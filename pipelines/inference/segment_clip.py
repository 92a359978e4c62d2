"""Segments some expressions in one encoded clip: masks at the original size, and the merged maps of DAVIS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from pipelines.inference.answers import Compressed, Masks
from pipelines.inference.protocols import Keep
from pipelines.predictions import Box
from sgmg.batch import ClipOutput, TextFeatures, VideoFeatures
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.decoding import (
    THRESHOLD,
    best_query,
    mask_from_logits,
    merge_objects,
    original_logits,
    packed_bits,
    ranked_queries,
)
from sgmg.masks import Size, masks_to_bits
from sgmg.model import SgMg
from sgmg.segmenter import groups_of, segment_in_parts, slices


class NotFinite(ValueError):
    """The model's scores are not finite: its weights or the precision are broken."""


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """One encoded clip.

    Attributes:
        video: its features.
        sizes: height and width before padding.
        original: height and width of the source; masks have this size.
    """

    video: VideoFeatures
    sizes: Int[Tensor, "1 2"]
    original: tuple[int, int]

    @property
    def size(self) -> Size:
        """Height and width before padding."""
        height, width = self.sizes[0].tolist()
        return height, width

    @property
    def length(self) -> int:
        """Number of frames that are segmented."""
        return self.video.levels[0].shape[1]

    @property
    def bytes(self) -> int:
        """Memory of its features, without what clips of one size share."""
        return sum(one.nbytes for one in (*self.video.levels, *self.video.details))


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """Tracks of one expression in a clip of t frames.

    Attributes:
        masks: of the kept queries at the original size.
        scores, boxes: (q t) and (q t 4), of the kept queries, or of all if there are coarse masks.
        coarse: masks of all queries at the size that the model sees, if asked for.
        best: index of the kept query among all, if there are coarse masks.
    """

    masks: Masks
    scores: tuple[tuple[float, ...], ...]
    boxes: tuple[tuple[Box, ...], ...]
    coarse: Masks | None
    best: int


def _every_query(scores: Float[Tensor, "e t q"]) -> Int[Tensor, "e q"]:
    return torch.arange(scores.shape[2], device=scores.device).expand(len(scores), -1)


def _chosen_query(scores: Float[Tensor, "e t q"]) -> Int[Tensor, "e 1"]:
    return best_query(scores)[:, None]


_KEPT: dict[Keep, Callable[[Tensor], Tensor]] = {
    "chosen": _chosen_query,
    "all": _every_query,
    "ranked": ranked_queries,
}


def segment_clip(
    model: SgMg,
    clip: EncodedClip,
    text: TextFeatures,
    keep: Keep,
    rows: int,
    *,
    together: int = 1,
    objects: Sequence[int] | None = None,
    coarse: bool = False,
) -> tuple[list[ClipAnswer], tuple[Compressed, ...]]:
    """Returns what a clip shows of every expression, and its merged maps.

    Args:
        model: in eval mode.
        clip: encoded.
        text: features of the expressions.
        keep: which queries are kept.
        rows: most pairs of frame and expression segmented at once; bounds the memory, does not change results.
        together: most expressions that a multi-object model is asked in one pass.
        objects: the object number of each expression, if objects compete for the pixels; else None, and no maps.
        coarse: whether masks of all queries are returned too, at the size that the model sees.

    Raises:
        NotFinite: the model's scores are not finite.
        torch.OutOfMemoryError: the memory of the GPU is full; fewer rows may fit.
    """
    parts, kept = [], []
    for some in groups_of(model, len(text.sentence_feature), together, rows // clip.length):
        out = segment_in_parts(model, clip.video, text.expressions(some), clip.sizes, rows)
        if not out.scores.isfinite().all():
            raise NotFinite("the model's scores are not finite. Try --precision float32, or another checkpoint.")
        kept.append(_KEPT[keep](out.scores[-1]))
        parts.append(_only(out, _every_query(out.scores[-1]) if coarse else kept[-1]))  # Frees the other masks.
    out = _joined(parts)
    drawn = _Drawn(out.scores.shape[1])
    for frames in slices(clip.length, max(1, rows // out.scores[-1, :, 0].numel())):
        _draw(model, clip, out, frames, drawn, torch.cat(kept) if coarse else None, objects)
    best = torch.cat(kept)[:, 0].tolist() if coarse else [0] * len(drawn.masks)
    scores = rearrange(out.scores[-1].sigmoid(), "e t q -> e q t").tolist()
    corners = pixels_from_unit(cxcywh_to_xyxy(out.boxes[-1].float()), clip.sizes.new_tensor(clip.original))
    boxes = rearrange(corners, "e t q xyxy -> e q t xyxy").tolist()
    answers = [
        ClipAnswer(
            masks=Masks(clip.original, tuple(drawn.masks[i])),
            scores=tuple(map(tuple, scores[i])),
            boxes=tuple(tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in track) for track in boxes[i]),
            coarse=Masks(clip.size, tuple(drawn.coarse[i])) if coarse else None,
            best=best[i],
        )
        for i in range(len(drawn.masks))
    ]
    return answers, tuple(drawn.merged)


class _Drawn:
    """Masks of e expressions that are drawn so far: bits, original and coarse, and merged maps."""

    def __init__(self, expressions: int) -> None:
        self.masks: list[list[Compressed]] = [[] for _ in range(expressions)]
        self.coarse: list[list[Compressed]] = [[] for _ in range(expressions)]
        self.merged: list[Compressed] = []


def _draw(
    model: SgMg,
    clip: EncodedClip,
    out: ClipOutput,
    frames: slice,
    drawn: _Drawn,
    best: Int[Tensor, "e 1"] | None,
    objects: Sequence[int] | None,
) -> None:
    """Draws the queries of `out` in some frames; if `best` is given, only those at the original size, all coarsely."""
    logits = model.refine(clip.video.frames(frames), out.frames(frames), _every_query(out.scores[-1]))
    if best is not None:
        height, width = clip.size
        _add(drawn.coarse, mask_from_logits(logits[..., :height, :width].float()))
        logits = logits[torch.arange(len(best), device=best.device)[:, None], best]
    probabilities = original_logits(logits, clip.size, clip.original).sigmoid()
    if objects is not None:
        drawn.merged.append(Compressed.of(_object_maps(probabilities[:, 0], objects)))
    _add(drawn.masks, probabilities > THRESHOLD)


def _add(parts: Sequence[list[Compressed]], masks: Bool[Tensor, "e k t h w"]) -> None:
    bits = masks_to_bits(masks.numpy()) if masks.device.type == "cpu" else packed_bits(masks).cpu().numpy()
    for part, of_expression in zip(parts, bits, strict=True):
        part.append(Compressed.of(of_expression))


def _only(out: ClipOutput, query: Int[Tensor, "e k"]) -> ClipOutput:
    """Returns the output of the last layer for some queries, in their order."""
    expression = torch.arange(len(query), device=query.device)[:, None]

    def taken(values: Tensor) -> Tensor:
        return values[-1][expression, :, query].movedim(2, 1)[None]

    return ClipOutput(
        taken(out.scores), taken(out.boxes), taken(out.reference_points), taken(out.patch_masks), clip_of=out.clip_of
    )


def _joined(parts: Sequence[ClipOutput]) -> ClipOutput:
    """Joins the outputs of consecutive expressions of one clip."""
    if len(parts) == 1:
        return parts[0]
    names = ("scores", "boxes", "reference_points", "patch_masks")
    together = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names}
    return replace(parts[0], **together, clip_of=torch.cat([part.clip_of for part in parts]))


def _object_maps(probabilities: Float[Tensor, "o t h w"], objects: Sequence[int]) -> UInt8[np.ndarray, "t h w"]:
    """Returns maps of object numbers, 0 for background; where objects overlap, the likelier one is taken."""
    numbers = np.array([0, *objects], dtype=np.uint8)
    return numbers[merge_objects(probabilities).cpu().numpy()]
