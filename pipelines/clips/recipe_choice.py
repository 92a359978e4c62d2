"""Choice of the clip recipe that suits a folder of prepared data."""

from typing import Literal

from pipelines.clips.augmentation import ClipRecipe
from pipelines.manifest import Manifest

ClipKind = Literal["images", "clips", "annotated-frames"]
"""Material of the clips: single images, videos with a mask in every frame, or videos with masks in some frames."""


def names_frames(manifest: Manifest) -> bool:
    """Returns whether any expression names the frames in which its object is annotated (A2D, JHMDB)."""
    return any(row.anchor_counts is not None for row in manifest.rows)


def one_annotated_frame(manifest: Manifest) -> bool:
    """Returns whether no video has more than one annotated frame."""
    return all(row.frames <= 1 for row in manifest.rows)


def published_kind(manifest: Manifest) -> ClipKind:
    """Returns the kind of clips that the published training makes of such data."""
    if names_frames(manifest):
        return "annotated-frames"
    if manifest.single_images:
        return "images"
    return "annotated-frames" if one_annotated_frame(manifest) else "clips"


def recipe_for(manifest: Manifest, kind: ClipKind, length: int = 5) -> ClipRecipe:
    """Returns the published recipe for clips of `length` frames; images in a training on clips become pseudo-videos."""
    if kind == "images":
        return ClipRecipe.image()
    if kind == "annotated-frames":
        return ClipRecipe.one_target_frame(length)
    return ClipRecipe.pseudo_video(length) if one_annotated_frame(manifest) else ClipRecipe.video(length)
