"""What a benchmark's own files ask for, every video, expression and frame or every image, and what of it is missing."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, UnidentifiedImageError

from pipelines.exports.coco import IMAGE_SETS, image_ids
from pipelines.exports.writing import parent_and_name
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, number_first
from pipelines.sources.davis_texts import raw_videos
from pipelines.sources.meta_expressions import checked
from sgmg.masks import Size

_META = {
    "ref-youtube-vos": "meta_expressions/{split}/meta_expressions.json",
    "ref-davis17": "meta_expressions/{split}/meta_expressions.json",
    "mevis": "{split}/meta_expressions.json",
}
_IMAGES = {
    "ref-youtube-vos": ("{split}/JPEGImages",),
    "ref-davis17": ("{split}/JPEGImages/480p", "{split}/JPEGImages"),
    "mevis": ("{split}/JPEGImages",),
}
_TRUTH = {
    "a2d-sentences": ("a2d_sentences_{split}_annotations_in_coco_format.json",),
    "jhmdb-sentences": ("jhmdb_sentences_gt_annotations_in_coco_format.json",),
    **{name: (f"{name}/instances_{name}_{{split}}.json", f"instances_{name}_{{split}}.json") for name in IMAGE_SETS},
}
_FIRST = 10  # how many of a kind of fault are listed


@dataclass
class Mismatch:
    """What does not agree, by kind; `str` lists the first ten of each and counts the rest."""

    missing: list[str] = field(default_factory=list)  # asked for, not predicted
    others: list[str] = field(default_factory=list)  # predicted, not asked for
    sizes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.others or self.sizes)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "not asked for": self.others, "of another size": self.sizes}
        return ". ".join(
            f"{len(found)} {kind}: {'; '.join(found[:_FIRST])}{' …' if len(found) > _FIRST else ''}"
            for kind, found in kinds.items()
            if found
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a meta file asks for: `videos` (expression ids and frames of each) or `images` (height, width of each).

    `wordless` are the videos and ids of expressions whose sentence is empty: the server wants their masks all the same.
    """

    path: str
    rule: str  # which part of the file, in words
    videos: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    images: Mapping[str | int, Size] = field(default_factory=dict)
    frames: Folder | None = None  # <video>/<frame>.jpg, to compare sizes with
    wordless: tuple[tuple[str, str], ...] = ()


def read_expected(meta: str, dataset: str, split: str) -> Expected:
    """What the benchmark's file asks for.

    Args:
        meta: the dataset's folder, or the file: `meta_expressions.json`, or a ground truth in COCO's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the dataset has none, or the file is damaged.
    """
    parent, base = parent_and_name(meta)
    if dataset in _TRUTH:
        root, names = Folder(meta), [name.format(split=split) for name in _TRUTH[dataset]]
        name = next((name for name in names if root.has(name)), None)
        found = (root, name) if name else (Folder(parent), base)
        return _wanted_images(*found, names)
    if dataset not in _META:
        raise ValueError(f"{dataset!r} has no meta file to compare with. Leave --meta out.")
    name = _META[dataset].format(split=split)
    if f"/{meta}".endswith(f"/{name}"):
        root = Folder(meta.removesuffix(name) or ".")
    elif meta.endswith(".json"):
        return _wanted_videos(Folder(parent), base, None, split)
    else:
        root = Folder(meta)
    if dataset == "ref-davis17" and root.has("davis_text_annotations"):
        return _wanted_raw_davis(root, split)
    images = next((each for each in (path.format(split=split) for path in _IMAGES[dataset]) if root.has(each)), None)
    wanted = _wanted_videos(root, name, root.folder(images) if images else None, split)
    return _official_valid(root, wanted) if (dataset, split) == ("ref-youtube-vos", "valid") else wanted


def with_empty_texts(predictions: Predictions, wanted: Expected) -> Predictions:
    """The same, and no mask for every expression that has no words in a video of which others were predicted.

    jobs/prepare.py leaves these out, so that nobody will ever predict them.
    """
    if predictions.dataset == "ref-davis17":  # It asks for maps of all objects, which are made while predicting.
        return predictions
    there = {(entry.video, entry.expression) for entry in predictions.entries}
    videos = {entry.video: entry for entry in predictions.entries}
    added = [
        replace(videos[video], expression=id, text="", external_id=None, rows=())
        for video, id in wanted.wordless
        if video in videos and (video, id) not in there
    ]
    entries = sorted([*predictions.entries, *added], key=lambda entry: (entry.video, number_first(entry.expression)))
    return replace(predictions, entries=tuple(entries))


def compare(predictions: Predictions, wanted: Expected) -> Mismatch:
    """What the predictions lack, what they have too much, and whose size is wrong.

    Raises:
        ValueError: nothing agrees: the file is of another dataset or split.
    """
    entries, images = predictions.entries, bool(wanted.images)
    ours = {id for entry in entries for id in (image_ids(predictions.dataset, entry) if images else [entry.video])}
    if not ours & (wanted.images or wanted.videos).keys():
        raise ValueError(
            f"{wanted.path} asks for nothing that {predictions.folder.path()} holds, which are predictions of "
            f"{predictions.dataset} {predictions.split}. Give --meta of that dataset and split."
        )
    return _compare_images(predictions, wanted) if images else _compare_videos(predictions, wanted)


def _compare_videos(predictions: Predictions, wanted: Expected) -> Mismatch:
    faults = Mismatch()
    found: dict[str, dict[str, set[str]]] = {}
    sizes: dict[str, tuple[Size, str]] = {}
    for entry in predictions.entries:
        found.setdefault(entry.video, {})[entry.expression] = set(entry.frame_names)
        sizes[entry.video] = (entry.size, entry.frame_names[0])
    for video in sorted({*wanted.videos, *found}):
        if video not in found or video not in wanted.videos:
            (faults.missing if video not in found else faults.others).append(f"video {video}")
            continue
        expressions, frames = wanted.videos[video]
        for expression in sorted({*expressions, *found[video]}, key=number_first):
            what = f"video {video}, expression {expression}"
            if expression not in found[video] or expression not in expressions:
                why = ": it has no words, so nothing was asked" if (video, expression) in wanted.wordless else ""
                (faults.others if expression in found[video] else faults.missing).append(what + why)
                continue
            there = found[video][expression]
            faults.missing += [f"{what}, frame {name}" for name in frames if name not in there]
            faults.others += [f"{what}, frame {name}" for name in sorted(there.difference(frames))]
        size, first = sizes[video]
        if wanted.frames and (stored := _image_size(wanted.frames, f"{video}/{first}.jpg")) not in (None, size):
            faults.sizes.append(f"video {video}: {size} predicted, {stored} its frames (height, width)")
    return faults


def _compare_images(predictions: Predictions, wanted: Expected) -> Mismatch:
    sizes = {id: entry.size for entry in predictions.entries for id in image_ids(predictions.dataset, entry)}

    def listed(ids: Iterable[str | int]) -> list[str]:
        return [f"image {id}" for id in sorted(map(str, ids), key=number_first)]

    return Mismatch(
        missing=listed(wanted.images.keys() - sizes.keys()),
        others=listed(sizes.keys() - wanted.images.keys()),
        sizes=listed(id for id in sizes.keys() & wanted.images.keys() if sizes[id] != wanted.images[id]),
    )


def _wanted_images(root: Folder, name: str, names: Iterable[str]) -> Expected:
    path = root.path(name)
    try:
        content = _read_json(root, name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Give the ground truth in COCO's format, or a folder with {names}.") from error
    try:
        images = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path} is no ground truth in COCO\'s format ({error!r} under "images").') from error
    return Expected(path, "every image", images=images)


def _wanted_videos(root: Folder, name: str, frames: Folder | None, split: str) -> Expected:
    path = root.path(name)
    videos = _read_json(root, name).get("videos")
    if not isinstance(videos, dict):
        raise ValueError(f'{path} has no object "videos". Give the meta_expressions.json of split {split}.')
    found, wordless = {}, []
    for video, entry in videos.items():
        listed = checked(video, entry, path)
        ids, asked = tuple(entry["expressions"]), {sentence.id for sentence in listed.sentences}
        found[video] = (ids, listed.frame_names)
        wordless += [(video, id) for id in ids if id not in asked]
    return Expected(path, "all its videos", found, frames=frames, wordless=tuple(wordless))


def _official_valid(root: Folder, wanted: Expected) -> Expected:
    """Without the videos of test, which the file lists too; where test's is missing, those that have images."""
    test = _META["ref-youtube-vos"].format(split="test")
    if root.has(test):
        of_test = _wanted_videos(root, test, None, "test").videos
        kept, rule = wanted.videos.keys() - of_test.keys(), f"valid without the videos that {root.path(test)} lists"
    elif wanted.frames is not None:
        kept = wanted.videos.keys() & set(wanted.frames.names())
        rule = f"its videos with a folder in {wanted.frames.path()}, as the file of test is missing"
    else:
        return wanted
    return replace(wanted, rule=rule, videos={video: wanted.videos[video] for video in sorted(kept)})


def _wanted_raw_davis(root: Folder, split: str) -> Expected:
    videos, wordless = {}, []
    for video, said in raw_videos(root, split):
        if said.problem:
            raise ValueError(f"{video}: {said.problem}")
        names = said.frame_names or [name.removesuffix(".jpg") for name in root.names(said.frames, ".jpg")]
        videos[video] = (tuple(number for number, _, _ in said.expressions), tuple(names))
        wordless += [(video, number) for number, text, _ in said.expressions if not text.strip()]
    home = "DAVIS/" if root.has("DAVIS") else ""
    frames = root.folder(f"{home}JPEGImages/480p")
    path = root.path("davis_text_annotations")
    return Expected(path, "all videos of the split", videos, frames=frames, wordless=tuple(wordless))


def _image_size(frames: Folder, name: str) -> Size | None:
    """Height and width that an image's header gives; None where there is no readable image."""
    try:
        with Image.open(io.BytesIO(frames.read(name))) as image:
            return image.height, image.width
    except (FileNotFoundError, UnidentifiedImageError):
        return None


def _read_json(root: Folder, name: str) -> dict[str, Any]:
    try:
        found = json.loads(root.read(name))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{root.path(name)} is no JSON ({error}). It may be cut short: download it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{root.path(name)} holds a {type(found).__name__}, not an object. Check --meta.")
    return found
