"""A small synthetic dataset in the official raw layouts of RefCOCO and Ref-YouTube-VOS, for the demo and for tests.

Scenes come from `synthetic_scene`, sentences from `synthetic_sentences`. The sources of the real datasets read it.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.files import Folder
from pipelines.sources.synthetic_layouts import SyntheticClip, write_refcoco, write_ytvos
from pipelines.sources.synthetic_scene import RICH, TRIES, Variety, draw_scene, paint
from pipelines.sources.synthetic_sentences import describe, describe_plainly

VERSION = 2
"""Version of the generator; changed when the same configuration would give other data."""

_MADE_BY = "synthetic.json"


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """Settings of the dataset. A clip depends on the seed, its split, its number and its size, not on the counts.

    Raises:
        ValueError: a count is below one, or the frames are too small for a scene.
    """

    seed: int = 0
    train_images: int = 300
    val_images: int = 40
    train_videos: int = 60
    valid_videos: int = 12
    test_videos: int = 4
    fewest_frames: int = 8  # of a video
    most_frames: int = 12
    width: int = 256  # pixels, of images and videos
    height: int = 160
    variety: Variety = RICH
    image_variety: Variety | None = None  # of images, if it differs

    def __post_init__(self) -> None:
        for name in ("train_images", "val_images", "train_videos", "valid_videos", "test_videos"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {count}, but every split needs at least one.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}. Give a whole number from 0.")
        if not 6 <= self.fewest_frames <= self.most_frames:
            raise ValueError(
                f"Videos of {self.fewest_frames} to {self.most_frames} frames: give at least 6, for things to come in "
                f"and leave, and fewest_frames no larger than most_frames."
            )
        if min(self.width, self.height) < 64 or max(self.width, self.height) > 2 * min(self.width, self.height):
            raise ValueError(
                f"Frames of {self.width}x{self.height}: give sides of at least 64 pixels, none longer than twice the "
                f"other, or the shapes do not fit."
            )


@dataclass(frozen=True, slots=True)
class SyntheticPaths:
    """Folders for `--raw`, and the ground truth that the raw data of valid and test lack.

    A folder of ground truth holds `Annotations/<video>/<frame>.png` and `meta_expressions_with_obj_id.json`.
    """

    refcoco: Path
    ytvos: Path
    valid_truth: Path
    test_truth: Path


def write_synthetic(folder: Path, config: SyntheticConfig) -> SyntheticPaths:
    """Writes the dataset, in one step, if it does not exist yet.

    A killed run leaves its files in `.<folder>.partial` in the same parent folder; the next run removes them. Only one
    run at a time.

    Raises:
        ValueError: the folder holds something else, or the output of another configuration; the message names the
            difference.
    """
    folder = folder.resolve()
    made_by = json.loads(json.dumps({"version": VERSION, **asdict(config)}))  # the form in which it is read back
    if not _is_there(folder, made_by):
        staging = folder.with_name(f".{folder.name}.partial")
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
        write_refcoco(staging / "refcoco_root", _images(config))
        write_ytvos(staging / "ytvos_root", staging / "truth", _videos(config))
        (staging / _MADE_BY).write_text(json.dumps(made_by))
        staging.rename(folder)  # Replaces an empty folder.
    truth = folder / "truth"
    return SyntheticPaths(folder / "refcoco_root", folder / "ytvos_root", truth / "valid", truth / "test")


def upload_synthetic(folder: Path, out: Folder) -> None:
    """Copies a dataset that `write_synthetic` wrote to a store, as far as it is not there.

    Raises:
        ValueError: the store has the output of another configuration there.
    """
    made_by, held = (folder / _MADE_BY).read_bytes(), out.read_if_there(_MADE_BY)
    if held is None:  # first, so that a second dataset cannot mix with a part of this one
        out.write(_MADE_BY, made_by)
    elif held != made_by:
        raise ValueError(f"{out.path()} is another dataset. Choose another folder, or remove it.")
    out.upload(folder)


def _is_there(folder: Path, made_by: dict[str, Any]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / _MADE_BY).is_file():
        raise ValueError(f"{folder} has no {_MADE_BY}, so it was not made by this. Choose a folder that is not there.")
    found = json.loads((folder / _MADE_BY).read_text())
    if differences := [
        f"{name} is {found.get(name)!r}, not {made_by.get(name)!r}"
        for name in dict.fromkeys((*made_by, *found))
        if found.get(name) != made_by.get(name)
    ]:
        raise ValueError(f"{folder} is another dataset: {'; '.join(differences)}. Choose another folder, or remove it.")
    return True


def _images(config: SyntheticConfig) -> Iterator[tuple[str, int, SyntheticClip]]:
    for split, count in (("train", config.train_images), ("val", config.val_images)):
        for number in range(count):
            yield split, number, _draw_clip(config, f"refcoco/{split}/{number}", image=True)


def _videos(config: SyntheticConfig) -> Iterator[tuple[str, SyntheticClip]]:
    counts = {"train": config.train_videos, "valid": config.valid_videos, "test": config.test_videos}
    for split, count in counts.items():
        for number in range(count):
            name = hashlib.md5(f"synthetic/{config.seed}/{split}/{number}".encode()).hexdigest()[:10]
            yield split, _draw_clip(config, name, image=False)


def _draw_clip(config: SyntheticConfig, name: str, image: bool) -> SyntheticClip:
    """Draws the clip of that name: the first scene in which every object has a sentence."""
    rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
    frames = 1 if image else int(rng.integers(config.fewest_frames, config.most_frames + 1))
    variety = (image and config.image_variety) or config.variety
    for _ in range(TRIES):
        scene = draw_scene(rng, frames, (config.height, config.width), variety)
        sentences = describe_plainly(scene) if variety.plain else describe(rng, scene, variety.kinds)
        if {sentence.thing for sentence in sentences} == set(range(len(scene.things))):
            return SyntheticClip(name, scene, paint(rng, scene), sentences)
    raise ValueError(f"Clip {name} of {config}: in none of {TRIES} scenes can all be told apart. Choose another seed.")
