"""From prepared folders to what is learned from them: recipes that fit, videos held out, sentences."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.geometry import Sizes
from pipelines.clips.recipe_choice import ClipKind
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import Manifest, RowInfo, Shard, read_manifest
from pipelines.training.config import TrainConfig
from pipelines.training.data import (
    clip_recipe,
    geometry_of,
    holdout,
    own_tokenizer,
    samples_text,
    shares,
    train_data,
)
from pipelines.training.recipes import A2D, FINETUNE, PRETRAIN
from pipelines.training.run import _with_absolute_paths
from pipelines.training.validation import validation_of
from training_runs import MadeUp, made_up

JOINT = replace(FINETUNE["joint"], data=("d",))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return made_up(tmp_path_factory.mktemp("made-up"))


def config_of(*folders: Path, recipe: TrainConfig = FINETUNE["tiny"], **changes: Any) -> TrainConfig:
    return replace(recipe, data=tuple(map(str, folders)), **changes)


def manifest_of(*rows: RowInfo, frames: int = 0) -> Manifest:
    """Of so many frames, annotated or not; by default only annotated ones."""
    counts = {"videos": len(rows), "frames": frames or sum(row.frames for row in rows)}
    return Manifest("own", "train", {}, counts, {}, 0, "", (Shard("own-train.parquet", 1, (rows,)),))


IMAGES = manifest_of(RowInfo("i", 1, 2), RowInfo("j", 1, 2))
VIDEOS = manifest_of(RowInfo("v", 9, 2), RowInfo("one frame only", 1, 2))
ALONE = manifest_of(RowInfo("one annotated", 1, 2), RowInfo("none annotated", 0, 2), frames=20)
ASKED = manifest_of(RowInfo("a", 30, 2, anchor_counts=(3, 1)))


@pytest.mark.parametrize(
    ("manifest", "config", "kind", "recipe"),
    [
        (IMAGES, PRETRAIN["pretrain"], "images", ClipRecipe.image()),
        (VIDEOS, PRETRAIN["pretrain"], "images", ClipRecipe.image()),
        (VIDEOS, FINETUNE["finetune"], "clips", ClipRecipe.video(5)),
        (VIDEOS, JOINT, "clips", ClipRecipe.video(5)),
        (IMAGES, JOINT, "clips", ClipRecipe.pseudo_video(5)),
        (ASKED, A2D["a2d"], "annotated-frames", ClipRecipe.one_target_frame(5)),
        (VIDEOS, A2D["a2d"], "annotated-frames", ClipRecipe.one_target_frame(5)),
        (ALONE, A2D["a2d"], "annotated-frames", ClipRecipe.one_target_frame(5)),
        (ALONE, JOINT, "clips", ClipRecipe.pseudo_video(5)),
    ],
)
def test_clips_are_made_as_job_and_data_call_for(
    manifest: Manifest, config: TrainConfig, kind: ClipKind, recipe: ClipRecipe
) -> None:
    assert clip_recipe(manifest, config, kind) == recipe


@pytest.mark.parametrize(
    ("manifest", "config", "kind", "mend"),
    [
        (IMAGES, FINETUNE["finetune"], "clips", "--recipe joint"),
        (ASKED, FINETUNE["finetune"], "clips", "jobs/finetune_a2d.py"),
        (ASKED, JOINT, "clips", "jobs/finetune_a2d.py"),
        (IMAGES, A2D["a2d"], "annotated-frames", "jobs/pretrain_refcoco.py"),
        (ALONE, FINETUNE["finetune"], "clips", "no more than one annotated frame in each video.*jobs/finetune_a2d.py"),
    ],
)
def test_data_that_do_not_fit_a_job_are_sent_to_another(
    manifest: Manifest, config: TrainConfig, kind: ClipKind, mend: str
) -> None:
    with pytest.raises(JobError, match=f"own, split train, .*{mend}"):
        clip_recipe(manifest, config, kind)


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        (PRETRAIN["multi"], PRETRAIN["pretrain"]),
        (PRETRAIN["multi-scratch"], PRETRAIN["pretrain"]),
        (FINETUNE["multi"], FINETUNE["finetune"]),
        (FINETUNE["multi-scratch"], FINETUNE["scratch"]),
        (A2D["multi"], A2D["a2d"]),
        (A2D["multi-scratch"], A2D["a2d"]),
    ],
)
def test_a_multi_object_model_learns_as_published_but_for_the_sentences_of_a_clip(
    recipe: TrainConfig, published: TrainConfig
) -> None:
    assert replace(recipe, recipe=published.recipe, multi_object=False, sentences_per_clip=0) == published
    assert (recipe.multi_object, recipe.most_sentences, published.most_sentences) == (True, 8, 1)
    assert replace(published, multi_object=True).most_sentences == 8
    with pytest.raises(ValueError, match="--sentences-per-clip -1 must be at least 1, or 0 for the default"):
        replace(recipe, sentences_per_clip=-1)


def test_what_the_config_wants_otherwise_is_changed_and_nothing_else() -> None:
    config = replace(FINETUNE["finetune"], crop=False, flip=False, reverse=False, colour=False)
    found, published = clip_recipe(VIDEOS, config, "clips"), ClipRecipe.video(5)
    steps = tuple(step for step in published.steps if step != "colour")
    geometry = replace(published.geometry, crop=0.0)
    assert found == replace(published, flip=0.0, reverse=0.0, steps=steps, geometry=geometry)


def test_other_sizes_keep_the_proportions_of_the_published_geometry() -> None:
    small = geometry_of((160,))
    assert small.at_once == small.cropped == Sizes((160,), 320)
    assert small.enlarged == Sizes((200,))
    assert small.crop_side == (160, 240)


def test_videos_held_out_are_chosen_by_name_scored_and_not_learned_from(data: MadeUp) -> None:
    config = config_of(data.videos, holdout=1)
    ((uri, (video,)),) = holdout(config).items()
    assert uri == Folder(str(data.videos)).uri
    everything, learned = train_data(config_of(data.videos), "clips"), train_data(config, "clips")
    asked = [row for shard in everything.parts[0].manifest.shards for group in shard.row_groups for row in group]
    held = next(row for row in asked if row.video == video)
    per_video = held.expressions * -(-held.frames // config.frames)
    assert learned.plan(0).samples == everything.plan(0).samples - per_video
    validation = validation_of(config)
    assert validation is not None
    (held_out,) = validation.sets
    assert [(ref.video, ref.work) for ref in held_out.rows] == [(video, held.frames * held.expressions)]
    # The hash, not the order, decides: more of them hold the same ones and others.
    assert {video} < set().union(*holdout(config_of(data.videos, holdout=3)).values())


def test_an_own_tokenizer_is_the_same_each_time_and_knows_all_sentences(data: MadeUp) -> None:
    folders = [str(data.images), str(data.videos)]
    one, other = own_tokenizer(folders, 300), own_tokenizer(folders, 300)
    assert one.to_json() == other.to_json()
    assert own_tokenizer(folders[:1], 300).to_json() != one.to_json()
    words, padding = one(["left right nothing"])
    assert not padding.any()
    assert words.max() < 300


def test_parts_share_seed_lanes_and_clip_length(data: MadeUp) -> None:
    recipe = replace(FINETUNE["joint"], global_batch=6, clips_per_pass=2, seed=5, frames=3, shuffle_window=7)
    found = train_data(config_of(data.images, data.videos, recipe=recipe), "clips")
    assert [part.recipe for part in found.parts] == [ClipRecipe.pseudo_video(3), ClipRecipe.video(3)]
    assert (found.seed, found.global_batch, found.clips_per_pass, found.shuffle_window) == (5, 6, 2, 7)
    counted = [read_manifest(folder.folder) for folder in found.parts]
    assert found.plan(0).samples == sum(_samples(manifest, 3) for manifest in counted)
    with pytest.raises(JobError, match="--data names no folder"):
        train_data(config_of(), "clips")


def test_what_is_not_learned_from_is_counted_beside_the_samples(data: MadeUp) -> None:
    found = train_data(config_of(data.videos, holdout=1), "clips")
    (part,) = found.parts
    (held,) = [row for row in part.manifest.rows if row.untrainable]
    assert samples_text(found) == f"{found.plan(0).samples} samples (sentences left out: {held.expressions} x held out)"
    crowds = manifest_of(RowInfo("a", 9, 4, untrainable={0: "crowd", 2: "no area", 3: "crowd"}), RowInfo("b", 9, 5))
    other = replace(found, parts=tuple(replace(part, manifest=crowds) for _ in range(2)))
    assert samples_text(other).endswith(" samples (sentences left out: 4 x crowd, 2 x no area)")
    everything = train_data(config_of(data.videos), "clips")
    assert samples_text(everything) == f"{everything.plan(0).samples} samples"


def _samples(manifest: Manifest, length: int) -> int:
    rows = [row for shard in manifest.shards for group in shard.row_groups for row in group]
    return int(np.sum([row.expressions * -(-row.frames // length) for row in rows]))


def test_shares_name_their_folders_as_data_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    config = replace(
        JOINT,
        storage=str(tmp_path),
        data=(f"{tmp_path}/link", "s3://b/c"),
        weights=(f"{tmp_path}/link/:3", "s3://b/c:1"),
    )
    assert shares(_with_absolute_paths(config)) == (0.75, 0.25)
