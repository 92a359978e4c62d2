"""Segments some expressions in one encoded clip: tracks at the original size, and the merged maps of DAVIS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.inference.protocols import Keep
from pipelines.predictions import QueryTrack
from sgmg.batch import ClipOutput, TextFeatures, VideoFeatures
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.decoding import THRESHOLD, best_query, merge_objects, original_logits, ranked_queries
from sgmg.masks import masks_to_rles
from sgmg.model import SgMg
from sgmg.segmenter import segment_in_parts, slices


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
    def length(self) -> int:
        """Number of frames that are segmented."""
        return self.video.levels[0].shape[1]


@dataclass(frozen=True, slots=True)
class ClipPredictions:
    """Tracks by expression and kept query; if objects are merged, also a PNG of object numbers for each frame."""

    tracks: list[list[QueryTrack]]
    merged: list[bytes] | None = None


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
    model: SgMg, clip: EncodedClip, text: TextFeatures, keep: Keep, rows: int, objects: Sequence[int] | None = None
) -> ClipPredictions:
    """Returns the tracks of every expression in every frame of a clip.

    Args:
        model: in eval mode.
        clip: encoded.
        text: features of the expressions.
        keep: which queries are kept.
        rows: most pairs of frame and expression segmented at once; bounds the memory, does not change results.
        objects: the object number of each expression, if objects compete for the pixels; else None.

    Raises:
        NotFinite: the model's scores are not finite.
        torch.OutOfMemoryError: the memory of the GPU is full; fewer rows may fit.
    """
    parts = []
    for some in slices(len(text.sentence_feature), max(1, rows // clip.length)):
        out = segment_in_parts(model, clip.video, text.expressions(some), clip.sizes, rows)
        if not out.scores.isfinite().all():
            raise NotFinite("the model's scores are not finite. Try --precision float32, or another checkpoint.")
        parts.append(_only(out, _KEPT[keep](out.scores[-1])))  # Frees the masks of the other queries.
    out = _joined(parts)
    e, k = out.scores.shape[1], out.scores.shape[3]
    rles: list[list[list[str]]] = [[[] for _ in range(k)] for _ in range(e)]
    merged: list[bytes] = []
    for frames in slices(clip.length, max(1, rows // (e * k))):
        probabilities = _drawn(model, clip, out, frames)
        if objects is not None:
            merged += _object_maps(probabilities[:, 0], objects)
        masks = (probabilities > THRESHOLD).cpu().numpy()
        for expression in range(e):
            for query in range(k):
                rles[expression][query] += masks_to_rles(masks[expression, query])
    scores = rearrange(out.scores[-1].sigmoid(), "e t k -> e k t").tolist()
    corners = pixels_from_unit(cxcywh_to_xyxy(out.boxes[-1].float()), clip.sizes.new_tensor(clip.original))
    boxes = rearrange(corners, "e t k xyxy -> e k t xyxy").tolist()
    tracks = [[_track(rles[i][q], boxes[i][q], scores[i][q]) for q in range(k)] for i in range(e)]
    return ClipPredictions(tracks, None if objects is None else merged)


def _track(rle: list[str], boxes: list[list[float]], scores: list[float]) -> QueryTrack:
    return QueryTrack(tuple(rle), tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes), tuple(scores))


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


def _drawn(model: SgMg, clip: EncodedClip, out: ClipOutput, frames: slice) -> Float[Tensor, "e k t h w"]:
    """Returns mask probabilities at the original size, for some of the frames."""
    every = _every_query(out.scores[-1])
    logits = model.refine(clip.video.frames(frames), out.frames(frames), every)
    height, width = clip.sizes[0].tolist()
    return original_logits(logits, (height, width), clip.original).sigmoid()


def _object_maps(probabilities: Float[Tensor, "o t h w"], objects: Sequence[int]) -> list[bytes]:
    """Returns PNGs of object numbers, 0 for background; where objects overlap, the likelier one is taken."""
    numbers = np.array([0, *objects], dtype=np.uint8)
    maps = numbers[merge_objects(probabilities).cpu().numpy()]
    pngs = [cv2.imencode(".png", one) for one in maps]
    assert all(written for written, _ in pngs)
    return [data.tobytes() for _, data in pngs]
