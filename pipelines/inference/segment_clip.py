"""What a few expressions segment_clip in one encoded clip: tracks at the original size, and DAVIS's merged maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.inference.protocols import Keep
from sgmg.batch import ClipOutput, TextFeatures, VideoFeatures
from sgmg.boxes import cxcywh_to_xyxy, pixels_from_unit
from sgmg.decoding import THRESHOLD, best_query, merge_objects, original_logits, ranked_queries
from sgmg.masks import masks_to_rles
from sgmg.model import SgMg
from sgmg.segmenter import segment_in_parts, slices


class NotFinite(ValueError):
    """The model's scores are no numbers: weights or precision are broken, and nothing can be read off them."""


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """One encoded clip, the (height, width) before padding, and that of the source, which masks are drawn at."""

    video: VideoFeatures
    sizes: Int[Tensor, "1 2"]
    original: tuple[int, int]

    @property
    def length(self) -> int:
        """Frames that are segmented."""
        return self.video.levels[0].shape[1]


@dataclass(frozen=True, slots=True)
class Track:
    """What one query says of one expression in each frame: COCO RLE, xyxy box in pixels, score from 0 to 1."""

    rle: list[str]
    boxes: list[list[float]]
    scores: list[float]


@dataclass(frozen=True, slots=True)
class ClipPredictions:
    """Tracks by expression and kept query; where objects were merged, a PNG of their numbers for each frame."""

    tracks: list[list[Track]]
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
    """What every expression finds in every frame of a clip.

    Args:
        model: in eval mode.
        clip: encoded.
        text: of the expressions.
        keep: which queries.
        rows: most pairs of frame and expression segmented at once; bounds memory, changes no result.
        objects: their numbers, one an expression, where they compete for the pixels.

    Raises:
        NotFinite: the model's scores are no numbers.
        torch.OutOfMemoryError: fewer rows may fit.
    """
    parts = []
    for some in slices(len(text.sentence), max(1, rows // clip.length)):
        out = segment_in_parts(model, clip.video, text.expressions(some), clip.sizes, rows)
        if not out.scores.isfinite().all():
            raise NotFinite("the model's scores are not finite. Try --precision float32, or another checkpoint.")
        parts.append(_only(out, _KEPT[keep](out.scores[-1])))  # The masks of other queries go at once.
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
    tracks = [[Track(rles[i][q], boxes[i][q], scores[i][q]) for q in range(k)] for i in range(e)]
    return ClipPredictions(tracks, None if objects is None else merged)


def _only(out: ClipOutput, query: Int[Tensor, "e k"]) -> ClipOutput:
    """The last layer's output for some queries alone, in their order."""
    expression = torch.arange(len(query), device=query.device)[:, None]

    def taken(values: Tensor) -> Tensor:
        return values[-1][expression, :, query].movedim(2, 1)[None]

    return ClipOutput(
        taken(out.scores), taken(out.boxes), taken(out.reference_points), taken(out.patch_masks), clip_of=out.clip_of
    )


def _joined(parts: Sequence[ClipOutput]) -> ClipOutput:
    """Outputs of consecutive expressions about one clip, as one."""
    if len(parts) == 1:
        return parts[0]
    names = ("scores", "boxes", "reference_points", "patch_masks")
    together = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names}
    return replace(parts[0], **together, clip_of=torch.cat([part.clip_of for part in parts]))


def _drawn(model: SgMg, clip: EncodedClip, out: ClipOutput, frames: slice) -> Float[Tensor, "e k t h w"]:
    """Probabilities at the original size, in some of the frames."""
    every = _every_query(out.scores[-1])
    logits = model.refine(clip.video.frames(frames), out.frames(frames), every)
    height, width = clip.sizes[0].tolist()
    return original_logits(logits, (height, width), clip.original).sigmoid()


def _object_maps(probabilities: Float[Tensor, "o t h w"], objects: Sequence[int]) -> list[bytes]:
    """PNGs of object numbers, 0 for background: where objects overlap the likelier wins."""
    numbers = np.array([0, *objects], dtype=np.uint8)
    maps = numbers[merge_objects(probabilities).cpu().numpy()]
    pngs = [cv2.imencode(".png", one) for one in maps]
    assert all(written for written, _ in pngs)
    return [data.tobytes() for _, data in pngs]
