"""The annotation files of RefCOCO, RefCOCO+ and RefCOCOg: refs and instances.json, or both converted into one JSON."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pipelines.errors import LayoutError, shown
from pipelines.files import Folder
from pipelines.sources.reading import annotation_json
from pipelines.sources.refs_pickle import plain_pickle

T = TypeVar("T")

_KEPT = ("id", "original_id", "image_id", "bbox", "area", "iscrowd", "category_id")
_AGAIN = "Take the file again from its owners."


class RefExpression(NamedTuple):
    """One sentence: its id in COCO results, and the image and annotation that it refers to."""

    id: int
    text: str
    image: int
    annotation: int


@dataclass
class Listing:
    """The content of the annotation files for one split; images and annotations by their ids in COCO.

    An image has id, file_name, width and height. An annotation has its keys from COCO, its category by name, and its
    segmentation as JSON text, which takes a tenth of the memory of lists of numbers.
    """

    file: str  # path, in the root, of the file that describes images and annotations
    sentences: list[RefExpression] = field(default_factory=list)
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)


def list_refs(root: Folder, refs_file: str, instances_file: str, split: str) -> Listing:
    """Lists one split of a refs file. Sentences are numbered from 1, refs in file order, sentences in ref order.

    Raises:
        LayoutError: a file is missing, has other content than its name promises, or has nothing of the split.
    """
    listing = Listing(instances_file, _sentences_of_refs(root, refs_file, split))
    annotation_ids = {sentence.annotation for sentence in listing.sentences}
    images, annotations = _described(root, instances_file, annotation_ids)
    path, wanted_images = root.path(instances_file), {sentence.image for sentence in listing.sentences}
    for image in images:
        if _field(image, "id", int, f"{path}: an image") in wanted_images:
            _put(listing.images, image["id"], _image(image, image["id"], path), f"{path}: image")
    for annotation in annotations:
        _put(listing.annotations, _field(annotation, "id", int, path), annotation, f"{path}: annotation")
    if not any(one.image in listing.images and one.annotation in listing.annotations for one in listing.sentences):
        raise LayoutError(
            f"{path} describes nothing that {root.path(refs_file)} speaks of. Take both files of one release."
        )
    return listing


def list_converted(root: Folder, file: str, dataset: str) -> Listing:
    """Lists the converted JSON of one split: an "image" and an annotation per sentence, `original_id` from COCO.

    Raises:
        LayoutError: the file is missing, has other content than its name promises, is of another dataset, or uses an id
            twice.
    """
    listing, path = Listing(file), root.path(file)
    images, annotations = _described(root, file)
    objects: dict[int, dict[str, Any]] = {}
    for annotation in annotations:
        _put(objects, _field(annotation, "image_id", int, f"{path}: an annotation"), annotation, f"{path}: sentence")
    for number, image in enumerate(images):
        where = f"{path}: images[{number}]"
        sentence, original = _field(image, "id", int, where), _field(image, "original_id", int, where)
        if image.get("dataset_name", dataset) != dataset:
            raise LayoutError(f"{where} is of {image['dataset_name']!r}, not of {dataset!r}. Say --dataset so.")
        if sentence not in objects:
            raise LayoutError(f"{where} has no annotation with image_id {sentence}. {_AGAIN}")
        annotation = dict(objects[sentence])
        annotation["id"] = _field(annotation, "original_id", int, f"{path}: the annotation of image_id {sentence}")
        del annotation["original_id"]
        annotation["image_id"] = original
        _put(listing.images, original, _image(image, original, where), f"{path}: original image")
        _put(listing.annotations, annotation["id"], annotation, f"{path}: original annotation")
        text = _field(image, "caption", str, where)
        listing.sentences.append(RefExpression(sentence, text, original, annotation["id"]))
    if len({sentence.id for sentence in listing.sentences}) < len(listing.sentences):
        raise LayoutError(f"{path} uses an image id twice, so results could not tell the sentences apart. {_AGAIN}")
    if not listing.sentences:
        raise LayoutError(f"{path} has no images. {_AGAIN}")
    return listing


def _sentences_of_refs(root: Folder, file: str, split: str) -> list[RefExpression]:
    path = root.path(file)
    try:
        refs = plain_pickle(root.read(file), path)
    except (FileNotFoundError, PermissionError) as error:
        raise LayoutError(f"{error} {_AGAIN}") from error
    if not isinstance(refs, list):
        raise LayoutError(f"{path} holds a {type(refs).__name__}, not a list of refs. {_AGAIN}")
    sentences: list[RefExpression] = []
    splits: set[str] = set()
    for number, ref in enumerate(refs):
        where = f"{path}: refs[{number}]"
        splits.add(_field(ref, "split", str, where))
        if ref["split"] != split:
            continue
        image, annotation = _field(ref, "image_id", int, where), _field(ref, "ann_id", int, where)
        for sentence in _field(ref, "sentences", list, where):
            text = _field(sentence, "sent", str, f"{where}, a sentence,")
            sentences.append(RefExpression(len(sentences) + 1, text, image, annotation))
    if not sentences:
        raise LayoutError(f"{path} has no sentence of split {split!r}; its splits are {sorted(splits)}. {_AGAIN}")
    return sentences


def _described(
    root: Folder, file: str, annotation_ids: Collection[int] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the images and annotations of a COCO file; only those with `annotation_ids`, if given."""

    def needed(entry: dict[str, Any]) -> dict[str, Any] | None:
        if "segmentation" not in entry:
            return entry
        if annotation_ids is not None and _key(entry, "id") not in annotation_ids:
            return None  # Dropped while parsing, to save memory: a split uses a small part of COCO.
        return {key: entry[key] for key in _KEPT if key in entry} | {"segmentation": json.dumps(entry["segmentation"])}

    path, coco = root.path(file), annotation_json(root, file, object_hook=needed)
    images, annotations = _entries(coco, "images", path), _entries(coco, "annotations", path)
    if annotation_ids is not None:
        annotations = [annotation for annotation in annotations if _key(annotation, "id") in annotation_ids]
    names = {_key(category, "id"): str(category.get("name", "")) for category in _entries(coco, "categories", path)}
    for annotation in annotations:
        annotation["category"] = names.get(_key(annotation, "category_id"), "")
        annotation.pop("category_id", None)
    return images, annotations


def _entries(coco: Any, name: str, path: str) -> list[dict[str, Any]]:
    entries = [entry for entry in _field(coco, name, list, path) if entry is not None]
    if odd := [entry for entry in entries if not isinstance(entry, dict)]:
        raise LayoutError(f"{path} has {shown(odd[0])} among its {name}, where each is a set of keys. {_AGAIN}")
    return entries


def _key(entry: dict[str, Any], name: str) -> int | str | None:
    """Returns a value that may be the key of a table; None for any other: a damaged file may hold lists there."""
    value = entry.get(name)
    return value if isinstance(value, int | str) else None


def _image(image: dict[str, Any], original: int, where: str) -> dict[str, Any]:
    kinds = {"file_name": str, "width": int, "height": int}
    return {"id": original} | {key: _field(image, key, kind, where) for key, kind in kinds.items()}


def _field(entry: Any, name: str, kind: type[T], where: str) -> T:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        found = "has none" if value is None else f"has {shown(value)}"
        raise LayoutError(f"{where} needs a {name!r} ({kind.__name__}), but {found}. {_AGAIN}")
    return value


def _put(table: dict[int, dict[str, Any]], key: int, value: dict[str, Any], where: str) -> None:
    if table.setdefault(key, value) != value:
        raise LayoutError(f"{where} {key} is described twice, and differently. {_AGAIN}")
