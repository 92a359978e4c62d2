"""COCO results files of A2D, JHMDB and RefCOCO, with all kept queries and their scores, for pycocotools."""

from collections.abc import Iterator
from typing import Any

from pipelines.exports.writing import json_output, read_lines, single, write_list
from pipelines.files import Folder
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.predictions import Prediction
from pipelines.sources.frame_ids import frame_id
from sgmg.masks import rle_to_coco

IMAGE_SETS = ("refcoco", "refcoco+", "refcocog")
"""Datasets whose results have boxes and one numeric id per expression; A2D and JHMDB have a text id per frame."""


def image_ids(dataset: str, entry: PredictionEntry | Prediction) -> list[str | int]:
    """Returns the image id that the ground truth uses for an expression, for each of its frames.

    Raises:
        ValueError: the expression has no such ids, as it belongs to another benchmark.
    """
    what = f"{entry.video}, expression {entry.expression}"
    if entry.external_id is None:
        raise ValueError(f"{what} has no external id, which COCO results need. Choose another --format.")
    if dataset not in IMAGE_SETS:
        return [frame_id(entry.external_id, name) for name in entry.frame_names]
    if len(entry.frame_names) != 1 or not entry.external_id.isdecimal():
        raise ValueError(
            f"{what} of {dataset} has the external id {entry.external_id!r} and {len(entry.frame_names)} frames, "
            f"but must have a number and 1 frame. Prepare and predict again."
        )
    return [int(entry.external_id)]


def write_coco_results(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes one result per line: image_id, category_id 1, segmentation and score, for RefCOCO also bbox (xywh).

    The published code writes xyxy in bbox instead, and reads it that way.

    Returns:
        The number of results.

    Raises:
        ValueError: a mask is damaged, or an expression has no id in the ground truth.
    """
    with json_output(out, name) as write:
        count = write_list(write, _results(predictions))
        write("\n")
    return count


def check_coco_results(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads the file back line by line and checks that exactly the predicted images have results.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: the images of the file are not the predicted ones.
    """
    expected = {id for entry in predictions.entries for id in image_ids(predictions.dataset, entry)}
    images: set[str | int] = set()
    count = 0
    for result in read_lines(out, name):
        count += 1
        images.add(result["image_id"])
    if images != expected:
        odd = sorted(map(str, images ^ expected))
        raise ValueError(f"{out.path(name)} has other images than were predicted: {odd[:10]}. Write it again.")
    return f"{count} results of {len(expected)} images, every mask of its image's size"


def _results(predictions: Predictions) -> Iterator[dict[str, Any]]:
    for prediction in predictions:
        for frame, image_id in enumerate(image_ids(predictions.dataset, prediction)):
            for query in prediction.queries:
                result: dict[str, Any] = {"image_id": image_id, "category_id": 1}
                if predictions.dataset in IMAGE_SETS:
                    x1, y1, x2, y2 = query.boxes[frame]
                    result["bbox"] = [single(x1), single(y1), single(x2 - x1), single(y2 - y1)]
                result["segmentation"] = segmentation(prediction, query.rle[frame])
                result["score"] = single(query.scores[frame])
                yield result


def segmentation(prediction: Prediction, rle: str) -> dict[str, Any]:
    """Converts a mask to COCO's segmentation.

    Raises:
        ValueError: the mask is damaged; the message names the video and expression.
    """
    try:
        return rle_to_coco(rle, (prediction.height, prediction.width))
    except ValueError as error:
        what = f"{prediction.video}, expression {prediction.expression}"
        raise ValueError(f"The prediction of {what} is damaged: {error} Predict it again.") from error
