"""Comparison of predictions with the videos, expressions, frames or images that a benchmark's own files list."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.exports.coco import IMAGE_SETS, image_ids
from pipelines.files import Folder, number_order, parent_and_name, uri_options, without_options
from pipelines.images import opened_image
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.sources.davis_texts import raw_videos
from pipelines.sources.mask_dict import LAYOUTS
from pipelines.sources.meta_expressions import checked
from pipelines.sources.reading import item_bytes
from pipelines.sources.vots import Vots, prompts_of, result_name
from sgmg.json_text import parse_json
from sgmg.masks import Size

_META = {
    "ref-youtube-vos": (
        "meta_expressions/{split}/meta_expressions.json",
        "{split}/meta_expressions_challenge.json",
        "{split}/meta_expressions.json",
    ),
    "ref-davis17": ("meta_expressions/{split}/meta_expressions.json",),
    "long-rvos": ("{split}/meta_expressions.json",),
    **{name: layout.meta for name, layout in LAYOUTS.items()},
}
_IMAGES = {
    "ref-youtube-vos": ("{split}/JPEGImages",),
    "ref-davis17": ("{split}/JPEGImages/480p", "{split}/JPEGImages"),
    "long-rvos": ("{split}/JPEGImages",),
    **{name: layout.images for name, layout in LAYOUTS.items()},
}
_TRUTH = {
    "a2d-sentences": ("a2d_sentences_{split}_annotations_in_coco_format.json",),
    "jhmdb-sentences": ("jhmdb_sentences_gt_annotations_in_coco_format.json",),
    **{name: (f"{name}/instances_{name}_{{split}}.json", f"instances_{name}_{{split}}.json") for name in IMAGE_SETS},
}
_FIRST = 10  # number of mismatches listed per kind


@dataclass
class Mismatch:
    """Differences between predictions and a meta file, by kind; `str` lists the first ten of each kind."""

    missing: list[str] = field(default_factory=list)  # in the meta file, but not predicted
    others: list[str] = field(default_factory=list)  # predicted, but not in the meta file
    sizes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.others or self.sizes)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "not expected": self.others, "of another size": self.sizes}
        return ". ".join(
            f"{len(found)} {kind}: {'; '.join(found[:_FIRST])}{' …' if len(found) > _FIRST else ''}"
            for kind, found in kinds.items()
            if found
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """Content of a meta file: `videos` (expression ids and frames of each) or `images` (height, width of each).

    The expressions of VOTS are listed by the names of their results.
    `wordless` lists video and id of each expression with an empty text: servers expect masks for them, too.
    """

    path: str
    rule: str  # description of the part of the file that is used
    videos: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    images: Mapping[str | int, Size] = field(default_factory=dict)
    frames: Folder | None = None  # to compare sizes with
    frame_path: str = "{video}/{frame}.jpg"  # of an image in `frames`
    wordless: tuple[tuple[str, str], ...] = ()


def read_expected(meta: str, dataset: str, split: str) -> Expected:
    """Reads the videos or images that the benchmark's file lists.

    Args:
        meta: folder of the dataset (of VOTS: workspace of its toolkit), or path of its `meta_expressions.json` or of
            its ground truth in COCO's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the dataset has no such file, or the file is damaged.
    """
    parent, base = parent_and_name(meta)
    plain = without_options(meta)
    if dataset in _TRUTH:
        root, names = Folder(meta), [name.format(split=split) for name in _TRUTH[dataset]]
        name = next((name for name in names if root.has(name)), None)
        place = (root, name) if name else (Folder(parent), base)
        return _expected_images(*place, names)
    if dataset == "vots":
        return _expected_vots(Folder(meta), split)
    if dataset not in _META:
        raise ValueError(f"{dataset!r} has no meta file to compare with. Leave --meta out.")
    names = [name.format(split=split) for name in _META[dataset]]
    if given := next((name for name in names if f"/{plain}".endswith(f"/{name}")), None):
        root = Folder((plain.removesuffix(given).rstrip("/") or ".") + uri_options(meta))
    elif plain.endswith(".json"):
        return _expected_videos(Folder(parent), base, None, split)
    else:
        root = Folder(meta)
    if dataset == "ref-davis17" and root.has("davis_text_annotations"):
        return _expected_raw_davis(root, split)
    name = given or next(filter(root.has, names), names[0])
    images = next((each for each in (path.format(split=split) for path in _IMAGES[dataset]) if root.has(each)), None)
    expected = _expected_videos(root, name, root.folder(images) if images else None, split)
    return _official_valid(root, expected) if (dataset, split) == ("ref-youtube-vos", "valid") else expected


def with_empty_texts(predictions: Predictions, expected: Expected) -> Predictions:
    """Adds an empty prediction for each expression with an empty text, in videos that have other predictions.

    jobs/prepare.py drops these expressions, so they are never predicted.
    """
    if predictions.dataset == "ref-davis17":  # It needs maps of all objects, which are made during prediction.
        return predictions
    predicted = {(entry.video, entry.expression) for entry in predictions.entries}
    videos = {entry.video: entry for entry in predictions.entries}
    added = [
        replace(videos[video], expression=id, text="", external_id=None, rows=())
        for video, id in expected.wordless
        if video in videos and (video, id) not in predicted
    ]
    entries = sorted([*predictions.entries, *added], key=lambda entry: (entry.video, number_order(entry.expression)))
    return replace(predictions, entries=tuple(entries))


def compare(predictions: Predictions, expected: Expected) -> Mismatch:
    """Compares predictions with a meta file: missing and extra entries, and wrong sizes.

    Raises:
        ValueError: they have nothing in common, as the file belongs to another dataset or split.
    """
    entries, images = predictions.entries, bool(expected.images)
    ours = {id for entry in entries for id in (image_ids(predictions.dataset, entry) if images else [entry.video])}
    if not ours & (expected.images or expected.videos).keys():
        raise ValueError(
            f"{expected.path} and the predictions in {predictions.folder.path()} have nothing in common. "
            f"The predictions are of {predictions.dataset} {predictions.split}: give --meta of that dataset and split."
        )
    return _compare_images(predictions, expected) if images else _compare_videos(predictions, expected)


def _compare_videos(predictions: Predictions, expected: Expected) -> Mismatch:
    mismatch = Mismatch()
    predicted: dict[str, dict[str, set[str]]] = {}
    sizes: dict[str, tuple[Size, str]] = {}
    for entry in predictions.entries:
        predicted.setdefault(entry.video, {})[_listed_name(predictions, entry)] = set(entry.frame_names)
        sizes[entry.video] = (entry.size, entry.frame_names[0])
    for video in sorted({*expected.videos, *predicted}):
        if video not in predicted or video not in expected.videos:
            (mismatch.missing if video not in predicted else mismatch.others).append(f"video {video}")
            continue
        expressions, frames = expected.videos[video]
        for expression in sorted({*expressions, *predicted[video]}, key=number_order):
            what = f"video {video}, expression {expression}"
            if expression not in predicted[video] or expression not in expressions:
                why = ": its text is empty, so it was not predicted" if (video, expression) in expected.wordless else ""
                (mismatch.others if expression in predicted[video] else mismatch.missing).append(what + why)
                continue
            predicted_frames = predicted[video][expression]
            mismatch.missing += [f"{what}, frame {name}" for name in frames if name not in predicted_frames]
            mismatch.others += [f"{what}, frame {name}" for name in sorted(predicted_frames.difference(frames))]
        size, first = sizes[video]
        image = expected.frame_path.format(video=video, frame=first)
        if expected.frames and (stored := _image_size(expected.frames, image)) not in (None, size):
            mismatch.sizes.append(f"video {video}: {size} predicted, {stored} its frames (height, width)")
    return mismatch


def _listed_name(predictions: Predictions, entry: PredictionEntry) -> str:
    """Returns what the dataset's files call an expression: VOTS, which numbers none, names the result of each."""
    return entry.external_id or "" if predictions.dataset == "vots" else entry.expression


def _compare_images(predictions: Predictions, expected: Expected) -> Mismatch:
    sizes = {id: entry.size for entry in predictions.entries for id in image_ids(predictions.dataset, entry)}

    def listed(ids: Iterable[str | int]) -> list[str]:
        return [f"image {id}" for id in sorted(map(str, ids), key=number_order)]

    return Mismatch(
        missing=listed(expected.images.keys() - sizes.keys()),
        others=listed(sizes.keys() - expected.images.keys()),
        sizes=listed(id for id in sizes.keys() & expected.images.keys() if sizes[id] != expected.images[id]),
    )


def _expected_images(root: Folder, name: str, names: Iterable[str]) -> Expected:
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


def _expected_videos(root: Folder, name: str, frames: Folder | None, split: str) -> Expected:
    path = root.path(name)
    videos = _read_json(root, name).get("videos")
    if not isinstance(videos, dict):
        raise ValueError(f'{path} has no object "videos". Give the meta_expressions.json of split {split}.')
    expressions_and_frames, wordless = {}, []
    for video, entry in videos.items():
        listed = checked(video, entry, path)
        ids, usable = tuple(entry["expressions"]), {sentence.id for sentence in listed.sentences}
        expressions_and_frames[video] = (ids, listed.frame_names)
        wordless += [(video, id) for id in ids if id not in usable]
    return Expected(path, "all its videos", expressions_and_frames, frames=frames, wordless=tuple(wordless))


def _official_valid(root: Folder, expected: Expected) -> Expected:
    """Removes the videos of test, which the file of valid also lists; else keeps those with images."""
    test = _META["ref-youtube-vos"][0].format(split="test")
    if root.has(test):
        of_test = _expected_videos(root, test, None, "test").videos
        kept, rule = expected.videos.keys() - of_test.keys(), f"valid without the videos that {root.path(test)} lists"
    elif expected.frames is not None:
        kept = expected.videos.keys() & set(expected.frames.names())
        rule = f"its videos with a folder in {expected.frames.path()}, as the file of test is missing"
    else:
        return expected
    return replace(expected, rule=rule, videos={video: expected.videos[video] for video in sorted(kept)})


def _expected_raw_davis(root: Folder, split: str) -> Expected:
    videos, wordless = {}, []
    for video, texts in raw_videos(root, split):
        if texts.problem:
            raise ValueError(f"{video}: {texts.problem}")
        names = texts.frame_names or [name.removesuffix(".jpg") for name in root.names(texts.frames, ".jpg")]
        videos[video] = (tuple(number for number, _, _ in texts.expressions), tuple(names))
        wordless += [(video, number) for number, text, _ in texts.expressions if not text.strip()]
    home = "DAVIS/" if root.has("DAVIS") else ""
    frames = root.folder(f"{home}JPEGImages/480p")
    path = root.path("davis_text_annotations")
    return Expected(path, "all videos of the split", videos, frames=frames, wordless=tuple(wordless))


def _expected_vots(root: Folder, split: str) -> Expected:
    frames, videos = root.folder("sequences") if root.has("sequences") else root, {}
    if not frames.has("list.txt"):
        raise FileNotFoundError(f"{frames.path('list.txt')} does not exist.")
    for item in Vots(root, split).items():
        sequence = root.folder(item.key)
        prompts = prompts_of(item.video, item_bytes(sequence, "sequence", item.video), sequence.path("sequence"))
        names = tuple(name.removesuffix(".jpg") for name in sequence.names("color", ".jpg"))
        videos[item.video] = (tuple(result_name(item.video, text) for text in prompts), names)
    path = frames.path("list.txt")
    return Expected(path, "every sequence", videos, frames=frames, frame_path="{video}/color/{frame}.jpg")


def _image_size(frames: Folder, name: str) -> Size | None:
    """Returns height and width from the header of an image; None if it is missing or unreadable."""
    try:
        with opened_image(frames.read(name)) as image:
            return image.height, image.width
    except (FileNotFoundError, ValueError):
        return None


def _read_json(root: Folder, name: str) -> dict[str, Any]:
    try:
        content = parse_json(root.read(name))
    except json.JSONDecodeError as error:
        raise ValueError(f"{root.path(name)} is no JSON ({error}). It may be cut short: download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{root.path(name)} holds a {type(content).__name__}, not an object. Check --meta.")
    return content
