"""COCO results of A2D, JHMDB and RefCOCO: all kept queries with their scores, as pycocotools loads them."""

from collections.abc import Iterator
from typing import Any

from pipelines.exports.writing import json_output, read_lines, single, write_list
from pipelines.files import Folder
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.predictions import Prediction
from pipelines.sources.frame_ids import frame_id
from sgmg.masks import rle_to_coco

IMAGE_SETS = ("refcoco", "refcoco+", "refcocog")
"""Ids of their results are numbers, one a sentence, and there are boxes; A2D and JHMDB have a text for every frame."""


def image_ids(dataset: str, entry: PredictionEntry | Prediction) -> list[str | int]:
    """What the ground truth calls an expression at each of its frames.

    Raises:
        ValueError: it has no such names: it is of another benchmark.
    """
    what = f"{entry.video}, expression {entry.expression}"
    if entry.external_id is None:
        raise ValueError(f"{what} has no external id, by which COCO results are named. Ask for another --format.")
    if dataset not in IMAGE_SETS:
        return [frame_id(entry.external_id, name) for name in entry.frame_names]
    if len(entry.frame_names) != 1 or not entry.external_id.isdecimal():
        raise ValueError(f"{what} of {dataset} should be a number, about one image, but is {entry.external_id!r}.")
    return [int(entry.external_id)]


def write_coco_results(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes a list of results, one a line: image_id, category_id 1, segmentation, score; of RefCOCO bbox, xywh, too.

    Ours: the published code writes xyxy there, and reads it back so.

    Raises:
        ValueError: a mask is damaged, or an expression has no name in the ground truth.
    """
    with json_output(out, name) as write:
        count = write_list(write, _results(predictions))
        write("\n")
    return count


def check_coco_results(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads the file back line by line: every image has results, no other image has.

    Returns:
        What was checked, for people.

    Raises:
        ValueError: something else is in it.
    """
    wanted = {id for entry in predictions.entries for id in image_ids(predictions.dataset, entry)}
    found: set[str | int] = set()
    count = 0
    for result in read_lines(out, name):
        count += 1
        found.add(result["image_id"])
    if found != wanted:
        odd = sorted(map(str, found ^ wanted))
        raise ValueError(f"{out.path(name)} has other images than were predicted: {odd[:10]}. Write it again.")
    return f"{count} results of {len(wanted)} images, every mask of its image's size"


def _results(predictions: Predictions) -> Iterator[dict[str, Any]]:
    for found in predictions:
        for place, image_id in enumerate(image_ids(predictions.dataset, found)):
            for query in found.queries:
                result: dict[str, Any] = {"image_id": image_id, "category_id": 1}
                if predictions.dataset in IMAGE_SETS:
                    x1, y1, x2, y2 = query.boxes[place]
                    result["bbox"] = [single(x1), single(y1), single(x2 - x1), single(y2 - y1)]
                result["segmentation"] = segmentation(found, query.rle[place])
                result["score"] = single(query.scores[place])
                yield result


def segmentation(found: Prediction, rle: str) -> dict[str, Any]:
    """A mask as COCO writes it.

    Raises:
        ValueError: it is damaged; the message names the video and expression.
    """
    try:
        return rle_to_coco(rle, (found.height, found.width))
    except ValueError as error:
        what = f"{found.video}, expression {found.expression}"
        raise ValueError(f"The prediction of {what} is damaged: {error} Predict it again.") from error
