"""YouTube-VIS JSON (a mask track per expression of a video) and COCO JSON (a mask per frame).

Names of images are relative to the folder of the run: `frames/<video>/<frame>.jpg` for videos whose frames are there
(`pipelines.exports.frame_files`), so that the folder of the run is all that a reader has to be told, also of parts. Of
other videos they are `<video>/<frame>.jpg`, relative to wherever the frames are: for Ref-YouTube-VOS and MeViS that is
their folder JPEGImages. Images that were annotated are not named where they lie: they may be turned, or of other sizes
than their masks, and readers refuse names that lead out of their folder (supervision and Datumaro do).
"""

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pipelines.exports.coco import segmentation
from pipelines.exports.frame_files import frame_file
from pipelines.exports.json_parts import PART_BYTES, JsonHead, write_parts
from pipelines.exports.video_facts import Names, VideoFacts, frames_of_videos, video_facts
from pipelines.exports.writing import json_output, read_lines, single, to_line, write_list
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions
from sgmg.masks import rle_area, rle_to_xywh

SUPERCATEGORY = "object"
"""Supercategory of every category: sentences have no taxonomy, but readers want one."""


def write_youtube_vis(predictions: Predictions, out: Folder, name: str, framed: Container[str] = ()) -> int:
    """Writes videos, categories (the texts) and annotations: a track for every kept query, with its mean score.

    Frames without the object, or without a prediction, have null for mask, box and area. The list of annotations is
    also valid as YouTube-VIS results. A video has, beside what YouTube-VIS asks for, its `source`, the `timestamps` of
    its frames (seconds) and their mean rate as `fps`, both null where they are not known.

    Args:
        predictions: of all videos.
        out: folder of the file.
        name: of the file.
        framed: videos whose frames are files in the folder of the run.

    Returns:
        The number of tracks.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = frames_of_videos(predictions)
    with json_output(out, name) as write:
        _head(predictions, "videos").begin(write, map(to_line, _videos(predictions, frames, framed)))
        count = write_list(write, _tracks(predictions, frames))
        write("}\n")
    return count


def write_coco_frames(predictions: Predictions, out: Folder, name: str, framed: Container[str] = ()) -> int:
    """Writes COCO: images (every frame of every video), categories (the texts) and one annotation per mask.

    An image has, beside what COCO asks for, the `video` it is of, the `source` of the video, and its `timestamp` in it
    (seconds; null where it is not known). Arguments are those of `write_youtube_vis`.

    Returns:
        The number of annotations.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = frames_of_videos(predictions)
    images = (to_line(one) for _, of_video in _images(predictions, frames, framed) for one in of_video)
    with json_output(out, name) as write:
        _head(predictions, "images").begin(write, images)
        count = write_list(write, _masks(predictions, frames))
        write("}\n")
    return count


def write_youtube_vis_parts(
    predictions: Predictions, out: Folder, name: str, framed: Container[str] = (), most: int = PART_BYTES
) -> int:
    """Writes `write_youtube_vis` in parts: `name` without its suffix is a folder of files 00000.json and so on.

    Each is whole in itself: it has the annotations of some videos, these videos, and the texts that they speak of; ids
    and names of images are those of the single file. A part is larger than `most` bytes only if one video is.

    Returns:
        The number of tracks.

    Raises:
        ValueError: a mask is damaged.
    """
    frames = frames_of_videos(predictions)
    videos = ((one["video"], [one]) for one in _videos(predictions, frames, framed))
    return write_parts(out, name, _head(predictions, "videos"), videos, _tracks(predictions, frames), most)


def write_coco_parts(
    predictions: Predictions, out: Folder, name: str, framed: Container[str] = (), most: int = PART_BYTES
) -> int:
    """Writes `write_coco_frames` in parts, as `write_youtube_vis_parts` does. Returns the number of annotations."""
    frames = frames_of_videos(predictions)
    images = _images(predictions, frames, framed)
    return write_parts(out, name, _head(predictions, "images"), images, _masks(predictions, frames), most)


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


def _file_names(facts: VideoFacts, framed: Container[str]) -> list[str]:
    """Returns the names of the images of a video; YouTube-VIS readers expect the suffix of an image."""
    if facts.video in framed:
        return [frame_file(facts.video, name) for name in facts.frame_names]
    return [f"{facts.video}/{name}.jpg" for name in facts.frame_names]


def _head(predictions: Predictions, key: str) -> JsonHead:
    info = {name: getattr(predictions, name) for name in ("dataset", "split", "fingerprint")}
    categories = {
        id: {"id": id, "name": text, "supercategory": SUPERCATEGORY} for text, id in _categories(predictions).items()
    }
    return JsonHead(json.dumps(info, ensure_ascii=False), key, categories)


def _categories(predictions: Predictions) -> dict[str, int]:
    """Numbers the texts from 1; equal texts of different videos are one category."""
    return {text: id for id, text in enumerate(dict.fromkeys(entry.text for entry in predictions.entries), start=1)}


def _videos(predictions: Predictions, frames: Names, framed: Container[str]) -> Iterator[dict[str, Any]]:
    for facts in video_facts(predictions, frames):
        height, width = facts.size
        yield {
            "id": facts.number,
            "video": facts.video,
            "height": height,
            "width": width,
            "length": len(facts.frame_names),
            "start_frame": facts.start_frame,
            "source": facts.source,
            "fps": facts.fps,
            "timestamps": facts.times,
            "file_names": _file_names(facts, framed),
        }


def _images(
    predictions: Predictions, frames: Names, framed: Container[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the id of each video, and its images."""
    first = _first_images(frames)
    for facts in video_facts(predictions, frames):
        height, width = facts.size
        times = facts.times or (None,) * len(facts.frame_names)
        shared = {"height": height, "width": width, "video": facts.video, "source": facts.source}
        files = enumerate(_file_names(facts, framed), start=first[facts.video])
        images = [
            {"id": id, "file_name": file, **shared, "timestamp": time}
            for (id, file), time in zip(files, times, strict=True)
        ]
        yield facts.video, images


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
