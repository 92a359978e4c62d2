"""Training data of a run: clips of prepared folders, videos held out, the tokenizer of their sentences."""

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.geometry import GeometryRecipe, Sizes
from pipelines.clips.recipe_choice import ClipKind, names_frames, one_annotated_frame, recipe_for
from pipelines.clips.stream import TrainData, TrainPart, without_videos
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import Manifest, read_manifest, read_rows
from pipelines.training.config import TrainConfig
from sgmg.tokenizer import Tokenizer


def train_data(config: TrainConfig, kind: ClipKind) -> TrainData:
    """Returns the data that a run learns from.

    Raises:
        JobError: a folder does not fit the recipe, or holds nothing to learn from.
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
        parts, config.seed, config.global_batch, config.clips_per_pass, config.shuffle_window, config.most_sentences,
        varied=config.multi_object, shares=shares(config),
    )  # fmt: skip
    data.plan(0)  # raises if there is nothing to learn from
    return data


def holdout(config: TrainConfig) -> dict[str, frozenset[str]]:
    """Returns the videos of each folder that are held out for validation: those whose names have the smallest hashes.

    Raises:
        JobError: no video would be left to learn from.
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
    held_out: dict[str, set[str]] = {}
    for _, uri, video in named[: config.holdout]:
        held_out.setdefault(uri, set()).add(video)
    return {uri: frozenset(videos) for uri, videos in held_out.items()}


def shares(config: TrainConfig) -> tuple[float, ...] | None:
    """Returns the share of each folder of --data in an epoch; they sum to 1. None without --weights: each sample once.

    >>> shares(TrainConfig(data=("a", "s3://b/c"), weights=("s3://b/c:3", "a:1")))
    (0.25, 0.75)

    Raises:
        JobError: a share is no number, is negative, is of no folder of --data, or is missing, or all are 0.
    """
    if not config.weights:
        return None
    given: dict[str, float] = {}
    for entry in config.weights:
        folder, _, number = entry.rpartition(":")
        try:
            given[folder] = float(number)
        except ValueError:
            given[folder] = -1.0
        if folder not in config.data or not 0 <= given[folder] < math.inf:
            raise JobError(
                f"--weights {entry} must be a folder of --data, a colon and a share of at least 0, such as data/a:0.7."
            )
    if missing := [folder for folder in config.data if folder not in given]:
        raise JobError(f"--weights give no share of {', '.join(missing)}. Give one of each folder of --data.")
    whole = sum(given.values())
    if not whole:
        raise JobError(
            f"--weights {' '.join(config.weights)} sum to 0, so there is nothing to learn from. Give at least one of "
            f"them a share above 0."
        )
    return tuple(given[folder] / whole for folder in config.data)


def clip_recipe(manifest: Manifest, config: TrainConfig, kind: ClipKind) -> ClipRecipe:
    """Returns how clips are made of one prepared folder.

    Raises:
        JobError: the dataset does not fit the recipe.
    """
    name = f"{manifest.dataset}, split {manifest.split},"
    images = manifest.single_images
    if kind == "annotated-frames" and images:
        raise JobError(f"{name} holds single images, but this job learns from video. Use jobs/pretrain_refcoco.py.")
    if kind == "clips" and names_frames(manifest):
        raise JobError(f"{name} has masks at a few frames of each video only. Use jobs/finetune_a2d.py.")
    if kind == "clips" and config.recipe != "joint":
        if images:
            raise JobError(
                f"{name} holds single images, but recipe {config.recipe!r} learns from video. Use --recipe joint, "
                f"which makes clips of them, or jobs/pretrain_refcoco.py."
            )
        if one_annotated_frame(manifest):
            raise JobError(
                f"{name} has no more than one annotated frame in each video, but recipe {config.recipe!r} learns from "
                f"clips of which every frame is annotated. Use jobs/finetune_a2d.py, or --recipe joint, which makes "
                f"clips of copies of that frame; or annotate more frames and prepare again."
            )
    return _with_settings(recipe_for(manifest, kind, config.frames), config)


def samples_text(data: TrainData) -> str:
    """Returns the number of samples of an epoch, and of the sentences that are left out by reason, as text."""
    left_out = sum((part.manifest.untrainable for part in data.parts), Counter[str]())
    reasons = ", ".join(f"{number} x {reason}" for reason, number in left_out.most_common())
    text = f"{data.plan(0).samples} samples" + (f" (sentences left out: {reasons})" if reasons else "")
    if data.repeats is None:
        return text
    parts = zip(data.parts, data.part_samples, data.repeats, strict=True)
    mixed = ", ".join(f"{part.folder.uri} {count} x {times:.3g}" for part, count, times in parts)
    return f"{text}, mixed of {mixed}"


def _with_settings(recipe: ClipRecipe, config: TrainConfig) -> ClipRecipe:
    """Returns the recipe, changed as the config says."""
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
    """Returns the published geometry at other sizes; its other numbers stay in proportion to the short sides."""
    sizes = Sizes(tuple(short_sides), 2 * max(short_sides))
    enlarged = Sizes(tuple(round(side * 1.25) for side in short_sides))
    return GeometryRecipe(sizes, enlarged, sizes, crop_side=(min(short_sides), round(1.5 * max(short_sides))))


def own_tokenizer(folders: Sequence[str], vocabulary: int) -> Tokenizer:
    """Returns a small tokenizer trained on every sentence of the prepared folders; deterministic."""
    sentences: list[str] = []
    for folder, manifest in _opened(folders):
        for shard in manifest.shards:
            for number in range(len(shard.row_groups)):
                rows = read_rows(folder, shard.file, number, ["expressions"])
                sentences += [expression["text"] for row in rows for expression in row["expressions"]]
    # Mirrored clips swap left and right, and the placeholder of a dropped sample is a sentence too.
    return Tokenizer.train([*sentences, "left right nothing", "left right nothing"], vocabulary)


def _opened(folders: Sequence[str]) -> list[tuple[Folder, Manifest]]:
    return [(folder, read_manifest(folder)) for folder in map(Folder, folders)]
