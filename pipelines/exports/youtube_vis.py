"""YouTube-VIS JSON (a mask track per expression of a video) and COCO JSON (a mask per frame)."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pipelines.exports.coco import segmentation
from pipelines.exports.writing import json_output, read_lines, single, to_line, write_lines, write_list
from pipelines.files import Folder, number_order
from pipelines.prediction_reader import PredictionEntry, Predictions
from sgmg.masks import rle_area, rle_to_xywh

Names = dict[str, tuple[str, ...]]
"""Frame names of every video, in order."""
PART_BYTES = 256 * 10**6
"""Most bytes of a part."""


def write_youtube_vis(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes videos, categories (the texts) and annotations: a track for every kept query, with its mean score.

    Frames without the object, or without a prediction, have null for mask, box and area. The list of annotations is
    also valid as YouTube-VIS results.

    Returns:
        The number of tracks.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = _frames(predictions)
    with json_output(out, name) as write:
        _begin(write, predictions, "videos", _videos(predictions, frames))
        count = write_list(write, _tracks(predictions, frames))
        write("}\n")
    return count


def write_coco_frames(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes COCO: images (every frame of every video), categories (the texts) and one annotation per mask.

    Returns:
        The number of annotations.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = _frames(predictions)
    with json_output(out, name) as write:
        _begin(write, predictions, "images", _images(predictions, frames))
        count = write_list(write, _masks(predictions, frames))
        write("}\n")
    return count


def write_youtube_vis_parts(predictions: Predictions, out: Folder, name: str, most: int = PART_BYTES) -> int:
    """Writes `write_youtube_vis` in parts: `name` without its suffix is a folder of files 00000.json and so on.

    Each is whole in itself: it has the annotations of some videos, these videos, and the texts that they speak of; ids
    are those of the single file. A part is larger than `most` bytes only if one video is.

    Returns:
        The number of tracks.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = _frames(predictions)
    videos = ((one["video"], [one]) for one in _videos(predictions, frames))
    return _write_parts(predictions, out, name, "videos", videos, _tracks(predictions, frames), most)


def write_coco_parts(predictions: Predictions, out: Folder, name: str, most: int = PART_BYTES) -> int:
    """Writes `write_coco_frames` in parts, as `write_youtube_vis_parts` does. Returns the number of annotations."""
    frames = _frames(predictions)
    images = groupby(_images(predictions, frames), key=lambda one: one["file_name"].rpartition("/")[0])
    return _write_parts(predictions, out, name, "images", images, _masks(predictions, frames), most)


def _write_parts(
    predictions: Predictions,
    out: Folder,
    name: str,
    key: str,
    things: Iterable[tuple[str, Iterable[dict[str, Any]]]],
    annotations: Iterator[dict[str, Any]],
    most: int,
) -> int:
    """Writes the parts, video by video; holds one of them in memory."""
    folder, categories = out.folder(name.removesuffix(".json")), _categories(predictions)
    of_videos = groupby(annotations, key=lambda one: one["video"])
    following = next(of_videos, None)
    count, written = 0, 0
    part = _Part()
    for video, of_video in things:
        added = _Part(things=[to_line(one) for one in of_video])
        if following and following[0] == video:
            for one in following[1]:
                added.texts[one["category_id"]] = None
                added.annotations.append(to_line(one))
            following = next(of_videos, None)
        if part.things and part.size + added.size > most:
            part.write(predictions, folder, f"{written:05d}.json", key, categories)
            written, part = written + 1, _Part()
        part.add(added)
        count += len(added.annotations)
    part.write(predictions, folder, f"{written:05d}.json", key, categories)
    for stale in folder.names(suffix=".json"):
        if stale > f"{written:05d}.json":
            folder.remove(stale)
    return count


@dataclass(slots=True)
class _Part:
    """Lines of a growing part, and the categories that they speak of."""

    things: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    texts: dict[int, None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes, more or less: lines are nearly all ASCII."""
        return sum(map(len, self.things)) + sum(map(len, self.annotations))

    def add(self, other: "_Part") -> None:
        """Adds the lines of a video."""
        self.things += other.things
        self.annotations += other.annotations
        self.texts |= other.texts

    def write(
        self, predictions: Predictions, folder: Folder, name: str, key: str, categories: Mapping[str, int]
    ) -> None:
        """Writes the file."""
        with json_output(folder, name) as write:
            write(f'{{\n"info":{_info(predictions)},\n"{key}":')
            write_lines(write, self.things)
            write(',\n"categories":')
            write_list(write, ({"id": id, "name": text} for text, id in categories.items() if id in self.texts))
            write(',\n"annotations":')
            write_lines(write, self.annotations)
            write("}\n")


def check_tracks(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads a file of either kind back and checks that annotations refer to existing videos or images and categories.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: an annotation refers to a missing entry or to an expression that was not predicted.
    """
    things: set[int] = set()
    expressions: set[tuple[str, str]] = set()
    categories: set[int] = set()
    annotations = 0
    for line in read_lines(out, name):
        if "category_id" not in line:
            (categories if "name" in line else things).add(line["id"])
            continue
        annotations += 1
        expressions.add((line["video"], line["expression"]))
        thing = line["video_id"] if "video_id" in line else line["image_id"]
        if thing not in things or line["category_id"] not in categories:
            raise ValueError(
                f"{out.path(name)}: annotation {line['id']} refers to a video, image or category that is missing. "
                f"Write it again."
            )
    known = {(entry.video, entry.expression) for entry in predictions.entries}
    if not expressions <= known:
        raise ValueError(f"{out.path(name)} has tracks that were not predicted: {sorted(expressions - known)[:10]}.")
    return f"{annotations} annotations of {len(expressions)} expressions, every mask of its video's size"


def _image_name(video: str, frame: str) -> str:
    """Returns the name of a frame in both formats; YouTube-VIS readers expect the suffix of an image.

    >>> _image_name("cat", "00005")
    'cat/00005.jpg'
    """
    return f"{video}/{frame}.jpg"


def _frames(predictions: Predictions) -> Names:
    """Collects the frames of each video: those of all its expressions, which differ in A2D and JHMDB only."""
    frames: Names = {}
    for entry in predictions.entries:
        known = frames.setdefault(entry.video, entry.frame_names)
        if known != entry.frame_names:
            frames[entry.video] = tuple(sorted({*known, *entry.frame_names}, key=number_order))
    return frames


def _begin(write: Callable[[str], None], predictions: Predictions, key: str, things: Iterator[dict[str, Any]]) -> None:
    write(f'{{\n"info":{_info(predictions)},\n"{key}":')
    write_list(write, things)
    write(',\n"categories":')
    write_list(write, ({"id": id, "name": text} for text, id in _categories(predictions).items()))
    write(',\n"annotations":')


def _info(predictions: Predictions) -> str:
    info = {name: getattr(predictions, name) for name in ("dataset", "split", "fingerprint")}
    return json.dumps(info, ensure_ascii=False)


def _categories(predictions: Predictions) -> dict[str, int]:
    """Numbers the texts from 1; equal texts of different videos are one category."""
    return {text: id for id, text in enumerate(dict.fromkeys(entry.text for entry in predictions.entries), start=1)}


def _by_video(predictions: Predictions) -> dict[str, PredictionEntry]:
    """Returns the first entry of every video; all entries of a video have its size."""
    return {entry.video: entry for entry in reversed(predictions.entries)}


def _videos(predictions: Predictions, frames: Names) -> Iterator[dict[str, Any]]:
    known = _by_video(predictions)
    for id, (video, names) in enumerate(frames.items(), start=1):
        height, width = known[video].size
        files = [_image_name(video, name) for name in names]
        yield {
            "id": id,
            "video": video,
            "height": height,
            "width": width,
            "length": len(names),
            "start_frame": known[video].start_frame,
            "file_names": files,
        }


def _images(predictions: Predictions, frames: Names) -> Iterator[dict[str, Any]]:
    known, first = _by_video(predictions), _first_images(frames)
    for video, names in frames.items():
        height, width = known[video].size
        for id, name in enumerate(names, start=first[video]):
            yield {"id": id, "file_name": _image_name(video, name), "height": height, "width": width}


def _first_images(frames: Names) -> Mapping[str, int]:
    first, firsts = 1, {}
    for video, names in frames.items():
        firsts[video] = first
        first += len(names)
    return firsts


def _tracks(predictions: Predictions, frames: Names) -> Iterator[dict[str, Any]]:
    categories = _categories(predictions)
    videos = {video: id for id, video in enumerate(frames, start=1)}
    count = 0
    for prediction in predictions:
        size = (prediction.height, prediction.width)
        for query in prediction.queries:
            count += 1
            rles = dict(zip(prediction.frame_names, query.rle, strict=True))
            masks = [
                (name in rles and segmentation(prediction, rles[name])) or None for name in frames[prediction.video]
            ]
            areas = [mask and rle_area(mask["counts"], size) for mask in masks]
            shown = [mask if area else None for mask, area in zip(masks, areas, strict=True)]
            yield {
                "id": count,
                "video_id": videos[prediction.video],
                "category_id": categories[prediction.text],
                "video": prediction.video,
                "expression": prediction.expression,
                "height": prediction.height,
                "width": prediction.width,
                "iscrowd": 0,
                "score": single(sum(query.scores) / len(query.scores)),
                "segmentations": shown,
                "bboxes": [mask and list(rle_to_xywh(mask["counts"], size)) for mask in shown],
                "areas": [area or None for area in areas],
            }


def _masks(predictions: Predictions, frames: Names) -> Iterator[dict[str, Any]]:
    categories, first = _categories(predictions), _first_images(frames)
    count = 0
    for prediction in predictions:
        size = (prediction.height, prediction.width)
        places = {name: place for place, name in enumerate(frames[prediction.video], start=first[prediction.video])}
        for query in prediction.queries:
            for name, rle, score in zip(prediction.frame_names, query.rle, query.scores, strict=True):
                mask = segmentation(prediction, rle)
                if not (area := rle_area(rle, size)):
                    continue
                count += 1
                yield {
                    "id": count,
                    "image_id": places[name],
                    "category_id": categories[prediction.text],
                    "video": prediction.video,
                    "expression": prediction.expression,
                    "iscrowd": 0,
                    "score": single(score),
                    "segmentation": mask,
                    "bbox": list(rle_to_xywh(rle, size)),
                    "area": area,
                }
