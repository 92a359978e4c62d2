"""CVAT: the XML of video tasks, "CVAT for video 1.1", beside their images or video files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.sources.base import Item, Reading
from pipelines.sources.coco_annotations import coco_rle
from pipelines.sources.cvat_xml import CvatTask, CvatTrack, cvat_mask_to_rle, joined_masks, read_task
from pipelines.sources.frame_files import FrameFiles
from pipelines.sources.label_files import each_file, label_files, plain, single_names
from pipelines.sources.labels import (
    LabelledObject,
    LabelledSentence,
    VideoLabels,
    labelled_reading,
    labels_of,
    sentences_of,
    unusable,
)
from pipelines.sources.pictures import Pictures
from pipelines.video.suffixes import is_video
from sgmg.masks import Size


@dataclass(frozen=True, slots=True)
class Cvat:
    """The XML of one task, or a folder with the XML of several.

    The documented rule: a shape holds from its frame until the next shape of its track, and `outside` ends it. Polygons
    are filled by pycocotools, as CVAT's own COCO export is; boxes and other shapes are no masks, and are dropped.
    Numbers of frames are those of the video: images named `frame_000123`, as CVAT names them, have the number of their
    name, others count from 0. Tracks of one frame that share group, label and sentence are one object, since CVAT makes
    a track of every mask.

    Args:
        raw: the file or folder.
        split: any name; the records get it.
        files: where the images or video files are. Images are looked for in a folder of the video's name; those of
            a single XML also in `images/`, where CVAT puts them, and in the folder itself.
    """

    raw: Folder
    split: str
    files: FrameFiles
    dataset: str = "cvat"

    def items(self) -> list[Item]:
        """Returns every video, sorted. It is named after the video file of the task, or else after the task.

        Raises:
            LayoutError: a file is missing, no XML, declares entities, or is of another format; or two videos have one
                name.
        """
        self.files.check()
        found = label_files(self.raw, ".xml")
        alone = len(found.names) == 1

        def parse(data: bytes, folder: Folder, name: str) -> Item:
            return _item(read_task(data, folder.path(name)), name, alone=alone)

        def without(name: str, problem: str) -> Item:
            video, labels = unusable(name, problem)
            return Item(video, {"labels": labels.item(video).key})

        items = each_file(found, parse, without)
        single_names((item.video, item.key["labels"]["file"]) for item in items)
        return sorted(items, key=lambda item: item.video)

    def read(self, item: Item) -> Reading:
        """Reads the pictures of one video, and its masks.

        Raises:
            BadItem: a picture is missing, damaged, or not of the annotated size, or a shape is unusable.
        """
        labels = labels_of(Item(item.video, item.key["labels"]), self.files.root)
        folders = (item.video, f"images/{item.video}", *(("images", "") if item.key["alone"] else ()))
        pictures = self.files.whole(item.video, labels.size, labels.names, folders)
        return labelled_reading(self, item, _held(item, labels, pictures), pictures, _rle)


def _item(task: CvatTask, name: str, *, alone: bool) -> Item:
    source = task.source.rpartition("/")[2]
    # CVAT gives a file name, of which several tasks may be made; our own export a path, and the video's id as the name.
    is_named = is_video(source) and not task.is_ours
    video = PurePosixPath(source).stem if is_named else task.name or PurePosixPath(name).stem
    tracks = joined_masks(task.tracks)
    objects = [LabelledObject(track.id, track.shapes, track.label) for track in tracks]
    if len({one.id for one in objects}) < len(objects):
        objects = [replace(one, id=number) for number, one in enumerate(objects, start=1)]
    texts = {one.id: track.texts for one, track in zip(objects, tracks, strict=True)}
    names = [one for one in (source, task.name, PurePosixPath(name).stem) if one]
    labels = VideoLabels(
        name,
        objects,
        _with_ids(sentences_of(texts), tracks),
        size=task.size,
        names=names,
        dropped=task.dropped,
        problem=task.problem,
    )
    return Item(video, {"labels": labels.item(video).key, "frames": task.frames, "ours": task.is_ours, "alone": alone})


def _with_ids(sentences: Iterable[LabelledSentence], tracks: Iterable[CvatTrack]) -> list[LabelledSentence]:
    """Returns the sentences with the ids that our own export gives them, if each has one of its own."""
    ids = {text: track.expression for track in tracks for text in track.texts}
    named = [replace(one, id=ids.get(one.text, "")) for one in sentences]
    is_unique = len({one.id for one in named} - {""}) == len(named)
    return named if is_unique else [replace(one, id="") for one in named]


def _held(item: Item, labels: VideoLabels, pictures: Pictures) -> VideoLabels:
    """Returns the labels with a mask for every frame in which one holds, by index of the picture.

    Frames that the task leaves out (its start and its step) are not annotated.
    """
    numbers = _numbers(pictures.names)
    last = max((number for one in labels.objects for number in one.masks), default=0)
    if last > max(numbers):
        raise BadItem(
            item.video,
            "list",
            f"{labels.file} has a shape in frame {last}, but the last one of {pictures.source} is {max(numbers)}. Give "
            f"the video that was annotated.",
        )
    if item.key["ours"] and item.key["frames"] and item.key["frames"][1] != len(numbers):
        raise BadItem(
            item.video,
            "list",
            f"{labels.file} counts the {item.key['frames'][1]} frames that were annotated, but {pictures.source} has "
            f"{len(numbers)}. Give the folder of the annotated frames as --frames.",
        )
    first, count, step = item.key["frames"] or (0, max(numbers) + 1, 1)
    annotated = range(first, first + count * max(step, 1), max(step, 1))
    unknown = [index for index, number in enumerate(numbers) if number not in annotated]
    objects = [replace(one, masks=_filled(one.masks, numbers, annotated), unknown=unknown) for one in labels.objects]
    return replace(labels, objects=objects)


def _numbers(names: Sequence[str]) -> list[int]:
    """Returns the number of each picture in the video.

    >>> _numbers(["frame_000010", "frame_000020"]), _numbers(["a", "b"])
    ([10, 20], [0, 1])
    """
    found = [re.fullmatch(r"frame_([0-9]{6,})", name) for name in names]
    return [int(one[1]) for one in found if one] if all(found) else list(range(len(names)))


def _filled(shapes: Mapping[int, list[str]], numbers: Iterable[int], annotated: range) -> dict[int, list[str]]:
    """Returns the masks that hold in annotated frames, by index of the frame; `numbers` are those of the frames."""
    starts = sorted(shapes, reverse=True)
    filled: dict[int, list[str]] = {}
    held: list[str] = []
    for index, number in enumerate(numbers):
        while starts and starts[-1] <= number:
            held = shapes[starts.pop()]
        if held and number in annotated:
            filled[index] = held
    return filled


def _rle(text: str, size: Size) -> str:
    mask: Any = plain(text.encode())
    return cvat_mask_to_rle(mask, size) if isinstance(mask, dict) else coco_rle(text, size)
