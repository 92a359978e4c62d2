"""Prepared folders to what a training run learns from: the clips they make, what is held out, their sentences."""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.geometry import GeometryRecipe, Sizes
from pipelines.clips.stream import TrainData, TrainPart, without_videos
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import Manifest, read_manifest, read_rows
from pipelines.training.config import ClipKind, TrainConfig
from sgmg.tokenizer import Tokenizer


def train_data(config: TrainConfig, kind: ClipKind) -> TrainData:
    """What is learned from.

    Raises:
        JobError: a folder does not fit the recipe, or has nothing to learn from.
        FileNotFoundError: a folder was not prepared.
    """
    if not config.data:
        raise JobError("--data names no folder. Give one or more that jobs/prepare.py wrote.")
    held_out = holdout(config)
    parts = tuple(
        TrainPart(
            folder, without_videos(manifest, held_out.get(folder.uri, frozenset())), clip_recipe(manifest, config, kind)
        )
        for folder, manifest in _opened(config.data)
    )
    data = TrainData(
        parts, config.seed, config.global_batch, config.clips_per_pass, config.shuffle_window, config.sentences
    )
    data.plan(0)  # says so now where there is nothing to learn from
    return data


def holdout(config: TrainConfig) -> dict[str, frozenset[str]]:
    """Videos of each folder that are kept for validation: those whose names have the smallest hashes.

    Raises:
        JobError: there are not so many videos.
    """
    if not config.holdout:
        return {}
    named = sorted(
        (zlib.crc32(f"{manifest.dataset}/{row.video}".encode()), folder.uri, row.video)
        for folder, manifest in _opened(config.data)
        for row in manifest.rows
    )
    if config.holdout >= len(named):
        raise JobError(f"--holdout {config.holdout} of {len(named)} videos leaves nothing to learn from.")
    found: dict[str, set[str]] = {}
    for _, uri, video in named[: config.holdout]:
        found.setdefault(uri, set()).add(video)
    return {uri: frozenset(videos) for uri, videos in found.items()}


def clip_recipe(manifest: Manifest, config: TrainConfig, kind: ClipKind) -> ClipRecipe:
    """How clips are made of one prepared folder.

    Raises:
        JobError: the dataset does not fit.
    """
    name = f"{manifest.dataset}, split {manifest.split},"
    images = manifest.single_images
    asked = any(row.anchor_counts is not None for row in manifest.rows)
    alone = all(row.frames <= 1 for row in manifest.rows)
    if kind == "images":
        recipe = ClipRecipe.image()
    elif kind == "annotated-frames":
        if images:
            raise JobError(f"{name} holds single images, but this job learns from video. Use jobs/pretrain_refcoco.py.")
        recipe = ClipRecipe.one_frame_asked(config.frames)
    elif asked:
        raise JobError(f"{name} has masks at a few frames of each video only. Use jobs/finetune_a2d.py.")
    elif images and config.recipe != "joint":
        raise JobError(
            f"{name} holds single images, but recipe {config.recipe!r} learns from video. Use --recipe joint, which "
            f"makes clips of them, or jobs/pretrain_refcoco.py."
        )
    elif alone and config.recipe != "joint":
        raise JobError(
            f"{name} has no more than one annotated frame in each video, but recipe {config.recipe!r} learns from "
            f"clips of which every frame is annotated. Use jobs/finetune_a2d.py, or --recipe joint, which makes clips "
            f"of copies of that frame; or annotate more frames and prepare again."
        )
    else:
        recipe = ClipRecipe.image_copies(config.frames) if alone else ClipRecipe.video(config.frames)
    return _changed(recipe, config)


def samples_told(data: TrainData) -> str:
    """How many samples an epoch has, and how many sentences of the folders are not learned from, by reason."""
    left_out = sum((part.manifest.untrainable for part in data.parts), Counter[str]())
    reasons = ", ".join(f"{number} x {reason}" for reason, number in left_out.most_common())
    return f"{data.plan(0).samples} samples" + (f" (sentences left out: {reasons})" if reasons else "")


def _changed(recipe: ClipRecipe, config: TrainConfig) -> ClipRecipe:
    """The recipe with what the config wants otherwise."""
    recipe = replace(recipe, resize=config.resize)
    if config.short_sides:
        recipe = replace(recipe, geometry=geometry_of(config.short_sides))
    if not config.crop:
        recipe = replace(recipe, geometry=replace(recipe.geometry, crop=0.0))
    if not config.flip:
        recipe = replace(recipe, flip=0.0)
    if not config.reverse:
        recipe = replace(recipe, reverse=0.0)
    if not config.colour:
        recipe = replace(recipe, steps=tuple(step for step in recipe.steps if step != "colour"))
    return recipe


def geometry_of(short_sides: Sequence[int]) -> GeometryRecipe:
    """The published geometry at other sizes: its numbers keep their proportions to the eight short sides."""
    sizes = Sizes(tuple(short_sides), 2 * max(short_sides))
    enlarged = Sizes(tuple(round(side * 1.25) for side in short_sides))
    return GeometryRecipe(sizes, enlarged, sizes, crop_side=(min(short_sides), round(1.5 * max(short_sides))))


def own_tokenizer(folders: Sequence[str], vocabulary: int) -> Tokenizer:
    """A small tokenizer trained on every sentence of the prepared folders; the same, however often it is made."""
    sentences: list[str] = []
    for folder, manifest in _opened(folders):
        for shard in manifest.shards:
            for number in range(len(shard.row_groups)):
                rows = read_rows(folder, shard.file, number, ["expressions"])
                sentences += [expression["text"] for row in rows for expression in row["expressions"]]
    # What is mirrored says right for left, and the placeholder of a dropped sample is a sentence too.
    return Tokenizer.train([*sentences, "left right nothing", "left right nothing"], vocabulary)


def _opened(folders: Sequence[str]) -> list[tuple[Folder, Manifest]]:
    return [(folder, read_manifest(folder)) for folder in map(Folder, folders)]
