"""The recipe that suits a folder of prepared data."""

import pytest

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.recipe_choice import published_kind, recipe_for
from pipelines.manifest import Manifest, RowInfo, Shard


@pytest.mark.parametrize(
    ("rows", "frames", "recipe"),
    [
        ([RowInfo("image", 1, 1)], 1, ClipRecipe.image()),
        ([RowInfo("all annotated", 9, 1)], 9, ClipRecipe.video()),
        ([RowInfo("one annotated", 1, 1)], 9, ClipRecipe.one_target_frame()),
        ([RowInfo("asked", 9, 1, anchor_counts=(3,))], 9, ClipRecipe.one_target_frame()),
    ],
)
def test_samples_are_shown_by_the_recipe_that_suits_them(rows: list[RowInfo], frames: int, recipe: ClipRecipe) -> None:
    counts = {"videos": len(rows), "frames": frames}
    manifest = Manifest("own", "train", {}, counts, {}, 0, "", (Shard("a", 1, (tuple(rows),)),))
    assert recipe_for(manifest, published_kind(manifest)) == recipe
