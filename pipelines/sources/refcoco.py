"""RefCOCO, RefCOCO+ and RefCOCOg: images of COCO train2014 with sentences about their objects (spec data.md §1)."""

import json
import posixpath
from dataclasses import dataclass
from typing import Any

from pipelines.errors import BadItem, Dropped, LayoutError, shown
from pipelines.files import Folder, safe_name
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.coco_annotations import clipped_xyxy, is_finite, segmentation_to_rle
from pipelines.sources.reading import checked_split, image_frames
from pipelines.sources.refcoco_files import Listing, RefExpression, list_converted, list_refs
from sgmg.masks import Size

_IMAGES = "train2014"
_REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
_SPLITS = {
    "refcoco": ("train", "val", "testA", "testB"),
    "refcoco+": ("train", "val", "testA", "testB"),
    "refcocog": ("train", "val", "test"),
}
_RELEASE = "Take refs and instances.json of one release."


@dataclass(frozen=True)
class RefCoco:
    """One split of one of the three datasets. A record is an image with the objects that its sentences refer to.

    Reads the refs file and `instances.json`; if there is no refs file, the converted
    `instances_<dataset>_<split>.json`. Both give the same records. The id of an expression is its id in COCO results.
    Crowd annotations and boxes without area are kept, as `iscrowd` and with their box; training skips them.

    Args:
        root: the folder that holds `train2014/` and a folder named as the dataset.
        split: one of train, val, testA, testB; of refcocog train, val, test.
        dataset: refcoco, refcoco+ or refcocog.

    Raises:
        ValueError: there is no such dataset or split.
    """

    root: Folder
    split: str
    dataset: str = "refcoco"

    def __post_init__(self) -> None:
        if self.dataset not in _SPLITS:
            raise ValueError(f"There is no RefCOCO set {self.dataset!r}. Choose one of {', '.join(_SPLITS)}.")
        checked_split(self.dataset, self.split, _SPLITS[self.dataset])

    def items(self) -> list[Item]:
        """Returns one item for each image that a sentence of the split refers to, sorted by file name.

        Raises:
            LayoutError: a file is missing, or does not have the content that its name promises.
        """
        refs = f"{self.dataset}/{_REFS[self.dataset]}"
        converted = f"{self.dataset}/instances_{self.dataset}_{self.split}.json"
        if self.root.has(refs):
            listing = list_refs(self.root, refs, f"{self.dataset}/instances.json", self.split)
        elif self.root.has(converted):
            listing = list_converted(self.root, converted, self.dataset)
        else:
            raise LayoutError(
                f"Neither {self.root.path(refs)} nor {self.root.path(converted)} exists. Point --raw at the folder "
                f"that holds {_IMAGES}/ and {self.dataset}/; in it are {self.root.names()[:20]}."
            )
        if not self.root.has(_IMAGES):
            raise LayoutError(f"{self.root.path(_IMAGES)} does not exist. Unpack COCO's train2014.zip there.")
        return _items(listing, self.root.path(listing.file))

    def read(self, item: Item) -> Reading:
        """Reads the image, its objects and its sentences.

        Raises:
            BadItem: the image is missing, damaged or of another size than annotated, or an annotation is unusable.
        """
        image, sentences = item.key["image"], [RefExpression(*values) for values in item.key["sentences"]]
        file = self.root.path(item.key["file"])
        if image is None:
            raise BadItem(item.video, "list", f"{file} does not describe image {sentences[0].image}. {_RELEASE}")
        frame = self._frame(item.video, image, file)
        size = (image["height"], image["width"])
        tracks = _tracks(item, size, file)
        expressions, dropped = _expressions(item.video, sentences)
        record = build_record(
            self,
            item.video,
            (image["width"], image["height"]),
            frame_names=(item.video,),
            frames=(frame,),
            objects=tracks,
            expressions=expressions,
            path=f"{_IMAGES}/{image['file_name']}",
            made_from=[frame, json.dumps(item.key, sort_keys=True)],
        )
        return Reading(record, dropped)

    def _frame(self, video: str, image: dict[str, Any], file: str) -> bytes:
        """Returns the bytes of the image after checking that it has the size of its masks."""
        name, folder = image["file_name"], self.root.folder(_IMAGES)
        try:
            safe_name(name)
        except ValueError as error:
            raise BadItem(video, "list", f"{file}: {error}") from error
        (frame,), found = image_frames(folder, [name], video)
        if found != (told := (image["width"], image["height"])):
            reason = f"{folder.path(name)} has size {found}, but {file} says {told}: its masks do not fit. {_RELEASE}"
            raise BadItem(video, "decode", reason)
        return frame


def _items(listing: Listing, path: str) -> list[Item]:
    """Groups sentences and annotations by image; `read` reports what the file does not describe."""
    by_image: dict[int, list[RefExpression]] = {}
    for sentence in listing.sentences:
        by_image.setdefault(sentence.image, []).append(sentence)
    items: dict[str, Item] = {}
    for number, sentences in by_image.items():
        image = listing.images.get(number)
        video = posixpath.splitext(image["file_name"])[0] if image else f"image {number}"
        if video in items:
            raise LayoutError(f"{path} has two images of the name {video!r}, but records need a name each.")
        wanted = dict.fromkeys(sentence.annotation for sentence in sentences)
        key = {
            "file": listing.file,
            "image": image,
            "sentences": [list(sentence) for sentence in sentences],
            "annotations": [listing.annotations[one] for one in wanted if one in listing.annotations],
        }
        items[video] = Item(video, key)
    return [items[video] for video in sorted(items)]


def _tracks(item: Item, size: Size, file: str) -> tuple[ObjectTrack, ...]:
    annotations: dict[int, dict[str, Any]] = {one["id"]: one for one in item.key["annotations"]}
    for _, _, image, number in item.key["sentences"]:
        if number not in annotations:
            raise BadItem(item.video, "list", f"{file} does not describe annotation {number}. {_RELEASE}")
        if annotations[number].get("image_id") != image:
            reason = f"{file}: annotation {number} is not of image {image}, as its sentence is. {_RELEASE}"
            raise BadItem(item.video, "list", reason)
    tracks: list[ObjectTrack] = []
    for number, annotation in annotations.items():
        try:
            tracks.append(_track(annotation, size))
        except ValueError as error:
            reason = f"{file}: annotation {number} is unusable: {error}. Take the file again from its owners."
            raise BadItem(item.video, "list", reason) from error
    return tuple(tracks)


def _track(annotation: dict[str, Any], size: Size) -> ObjectTrack:
    if missing := {"segmentation", "bbox"} - annotation.keys():
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    area = annotation.get("area")
    if area is not None and not is_finite(area):
        raise ValueError(f"its area is {shown(area)}, not a number")
    return ObjectTrack(
        id=annotation["id"],
        rle=(segmentation_to_rle(json.loads(annotation["segmentation"]), size),),
        category=annotation["category"],
        iscrowd=bool(annotation.get("iscrowd", 0)),
        area=None if area is None else (float(area),),
        boxes=(clipped_xyxy(annotation["bbox"], size),),
    )


def _expressions(video: str, sentences: list[RefExpression]) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the expressions to keep, and the dropped ones; dropping one leaves the ids of the others unchanged."""
    expressions: list[Expression] = []
    dropped: list[Dropped] = []
    for number, text, _, annotation in sentences:
        what = f"expression {number}, annotation {annotation}"
        if not text.strip():
            dropped.append(Dropped(video, "empty expression", what))
        else:
            expressions.append(Expression(str(number), text, (annotation,), external_id=str(number)))
    return tuple(expressions), tuple(dropped)
