"""Scores a COCO results file against a COCO annotations file."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.errors import shown
from pipelines.files import Folder, parent_and_name
from pipelines.safety.limits import check_pixels
from pipelines.scoring.pictures import Box, hit_ranks, match_boxes, match_masks
from pipelines.scoring.rows import PictureRow
from pipelines.sources.coco_annotations import is_finite, segmentation_to_rle
from sgmg.json_text import parse_json
from sgmg.masks import rle_union

AVERAGES = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
    "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large",
)  # fmt: skip
"""COCO's twelve numbers in its order."""


def coco_averages(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> dict[str, float]:
    """Returns COCO's twelve numbers for `kind` "segm" or "bbox"; per category where the results name several.

    Raises:
        ValueError: a result names an image that is not in the truth.
    """
    _check_images(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints and has no switch
        coco = COCO()
        coco.dataset = truth  # pyright: ignore[reportAttributeAccessIssue]  # asks for fields that no score reads
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iouType=kind)  # pyright: ignore[reportArgumentType]
        evaluation.params.useCats = int(len({one["category_id"] for one in results}) > 1)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(AVERAGES, map(float, evaluation.stats), strict=True))


def coco_rows(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[list[PictureRow], list[str]]:
    """Makes rows from results of referring benchmarks, where each image is one expression with one annotation.

    Scores boxes too if every result and every annotation has one.

    Returns:
        The rows, and the images without a result, which count as one empty candidate each.

    Raises:
        ValueError: an image has no or several annotations, a result names an unknown image, or a file is not COCO.
    """
    _check_form(truth, results)
    _check_images(truth, results)
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in results:
        by_image[one["image_id"]].append(one)
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in truth["annotations"]:
        annotations[one["image_id"]].append(one)
    boxed = all("bbox" in one for one in (*results, *truth["annotations"]))
    rows: list[PictureRow] = []
    for image in truth["images"]:
        if len(annotations[image["id"]]) != 1:
            raise ValueError(
                f"Image {image['id']} has {len(annotations[image['id']])} annotations; an expression has one. Give the "
                f"annotations of A2D, JHMDB or RefCOCO in COCO's form."
            )
        try:
            rows.append(_row(image, annotations[image["id"]][0], by_image[image["id"]], boxed))
        except ValueError as error:
            what = str(error).rstrip(".")
            raise ValueError(f"Image {image['id']}: {what}. Make its results again for these annotations.") from error
    missing = [f"image {image['id']}" for image in truth["images"] if not by_image[image["id"]]]
    return rows, missing


def read_json(path: str) -> Any:
    """Reads a JSON file, local or at a URI.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is not JSON.
    """
    parent, name = parent_and_name(path)
    try:
        return parse_json(Folder(parent).read(name))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no whole JSON ({error}). Make it or download it again.") from error


def _row(image: dict[str, Any], truth: dict[str, Any], results: list[dict[str, Any]], boxed: bool) -> PictureRow:
    size = (image["height"], image["width"])
    name, crowd = str(image["id"]), bool(truth.get("iscrowd", 0))
    rles = [segmentation_to_rle(one["segmentation"], size) for one in results] or [rle_union([], size)]
    scores = [one["score"] for one in results] or [0.0]
    true_rle = segmentation_to_rle(truth["segmentation"], size)
    masks = match_masks(rles, scores, true_rle, size, truth.get("area"), crowd)
    if not boxed:
        return PictureRow("coco", "", name, name, image.get("caption", ""), "", name, masks)
    boxes = [_xyxy(one["bbox"]) for one in results] or [(0.0, 0.0, 0.0, 0.0)]
    true_box = _xyxy(truth["bbox"])
    found = match_boxes(boxes, scores, true_box, truth.get("area"), crowd)
    hits = hit_ranks(boxes, scores, true_box)
    return PictureRow("coco", "", name, name, image.get("caption", ""), "", name, masks, found, hits)


def _xyxy(bbox: list[float]) -> Box:
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height


_NEEDED = {
    "images": ("id", "height", "width"),
    "annotations": ("image_id", "segmentation"),
    "results": ("image_id", "score", "segmentation"),
}


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


_FITS: dict[str, Callable[[Any], bool]] = {
    "id": _is_id,
    "image_id": _is_id,
    "category_id": _is_id,
    "score": is_finite,
    "area": lambda value: value is None or is_finite(value),
    "bbox": lambda value: isinstance(value, list) and len(value) == 4 and all(map(is_finite, value)),
    "caption": lambda value: isinstance(value, str),
}
"""Whether a value can be used, by its key."""


def _check_size(number: int, image: dict[str, Any]) -> None:
    try:
        check_pixels(image["height"], image["width"])
    except ValueError as error:
        raise ValueError(f"Number {number} of the images: {error}. Write it as COCO does.") from error


def _check_form(truth: Any, results: Any) -> None:
    """Checks that the fields of COCO files that are read here exist, and their types.

    Raises:
        ValueError: a field is missing or of another type; the message names the first.
    """
    held = truth if isinstance(truth, dict) else {}
    for what, found in {
        "images": held.get("images"),
        "annotations": held.get("annotations"),
        "results": results,
    }.items():
        if not isinstance(found, list):
            raise ValueError(
                f"There is no list of {what}. COCO's annotations are an object with the lists images and annotations, "
                f"its results are a list: give such files."
            )
        for number, one in enumerate(found):
            if absent := [key for key in _NEEDED[what] if not isinstance(one, dict) or key not in one]:
                raise ValueError(f"Number {number} of the {what} has no {', '.join(absent)}. Write it as COCO does.")
            for key in one.keys() & _FITS.keys():
                if not _FITS[key](one[key]):
                    raise ValueError(
                        f"Number {number} of the {what} has the {key} {shown(one[key])}. Write it as COCO does."
                    )
            if what == "images":
                _check_size(number, one)


def _check_images(truth: dict[str, Any], results: list[dict[str, Any]]) -> None:
    known = {image["id"] for image in truth["images"]}
    if strange := sorted({str(one["image_id"]) for one in results if one["image_id"] not in known}):
        raise ValueError(
            f"{len(strange)} images of the results are not in the truth, the first is {strange[0]}. Give the results "
            f"and the annotations of the same split."
        )
