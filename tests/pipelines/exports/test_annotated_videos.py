"""Exports of annotated videos, as the tools that people open them in read them."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.exports.youtube_vis import write_coco_frames, write_youtube_vis
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.predictions import Prediction

# pycocotools decodes by an array interface that numpy has since changed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

_ID = {"type": "integer", "minimum": 1}
_TEXT = {"type": "string", "minLength": 1}
_SIDE = {"type": "integer", "minimum": 1}
_BOX = {"type": "array", "items": {"type": "number", "minimum": 0}, "minItems": 4, "maxItems": 4}
_AREA = {"type": "number", "exclusiveMinimum": 0}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_RLE = {
    "type": "object",
    "required": ["size", "counts"],
    "properties": {"size": {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}, "counts": _TEXT},
}


def _list_of(**properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "required": list(properties), "properties": properties}}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"anyOf": [schema, {"type": "null"}]}}


_CATEGORIES = _list_of(id=_ID, name=_TEXT)
FIFTYONE = {
    "type": "object",
    "required": ["info", "images", "categories", "annotations"],
    "properties": {
        "info": {"type": "object"},
        "categories": _CATEGORIES,
        "images": _list_of(id=_ID, file_name=_TEXT, width=_SIDE, height=_SIDE),
        "annotations": _list_of(
            id=_ID, image_id=_ID, category_id=_ID, bbox=_BOX, area=_AREA,
            segmentation=_RLE, iscrowd={"enum": [0, 1]}, score=_SCORE,
        ),
    },
}  # fmt: skip
"""What FiftyOne's COCODetectionDataset importer reads (fiftyone/utils/coco.py, version 1.22.1)."""
YOUTUBE_VIS = {
    "type": "object",
    "required": ["info", "videos", "categories", "annotations"],
    "properties": {
        "info": {"type": "object"},
        "categories": _CATEGORIES,
        "videos": _list_of(
            id=_ID, width=_SIDE, height=_SIDE, length=_SIDE, file_names={"type": "array", "items": _TEXT}
        ),
        "annotations": _list_of(
            id=_ID, video_id=_ID, category_id=_ID, iscrowd={"const": 0}, width=_SIDE, height=_SIDE, score=_SCORE,
            segmentations=_or_null(_RLE), bboxes=_or_null(_BOX), areas=_or_null(_AREA),
        ),
    },
}  # fmt: skip
"""The file of the YouTube-VIS challenge, and the fields of its results."""


@pytest.fixture
def found(predict: Callable[..., Prediction], save: Callable[..., Folder], blobs: Any) -> Predictions:
    """A video in two segments, with frames left out by --fps, and one in which an expression is nowhere."""
    masks = blobs(5, 24, 32, seed=1)
    masks[2] = False
    said = {"dataset": "videos", "split": "", "external_id": None, "text": 'the "red" <b>собака</b>'}
    rows = [
        predict("a-0123456789", "0", masks[:3], frame_names=("00000", "00004", "00009"), **said),
        predict("a-0123456789", "0", masks[3:], frame_names=("00014", "00019"), segment=1, start_frame=3, **said),
        predict("b-0123456789", "1", blobs(2, 6, 9, seed=2), status="partial", note="one frame is gone", **said),
        predict("b-0123456789", "2", blobs(2, 6, 9) & False, status="absent", score=0.0, **said | {"text": "it"}),
    ]
    return read_predictions(save({"1.parquet": rows[:1], "2.parquet": rows[1:]}))


def written(write: Callable[[Predictions, Folder, str], int], found: Predictions, folder: Path) -> dict[str, Any]:
    write(found, Folder(str(folder)), "a.json")
    return json.loads((folder / "a.json").read_text())


def loaded(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_frames_are_what_fiftyone_imports(found: Predictions, tmp_path: Path) -> None:
    content = written(write_coco_frames, found, tmp_path)
    jsonschema.validate(content, FIFTYONE)
    assert len({one["id"] for one in content["annotations"]}) == len(content["annotations"]) == 6
    images, categories = ({one["id"]: one for one in content[key]} for key in ("images", "categories"))
    assert len({one["name"] for one in categories.values()}) == len(categories)  # FiftyOne looks classes up by name
    assert len({one["file_name"] for one in images.values()}) == len(images) == 7  # and images by file name
    for one in content["annotations"]:
        image = images[one["image_id"]]
        assert one["category_id"] in categories
        assert one["segmentation"]["size"] == [image["height"], image["width"]]
        x, y, width, height = (round(side) for side in one["bbox"])  # it keeps the mask within the box only
        mask = coco_mask.decode(one["segmentation"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum() == one["area"]


def test_tracks_are_those_of_youtube_vis(found: Predictions, tmp_path: Path) -> None:
    content = written(write_youtube_vis, found, tmp_path)
    jsonschema.validate(content, YOUTUBE_VIS)
    videos = {one["id"]: one for one in content["videos"]}
    assert [one["length"] for one in videos.values()] == [5, 2]
    for one in content["annotations"]:
        video = videos[one["video_id"]]
        assert len(one["segmentations"]) == len(one["bboxes"]) == len(one["areas"]) == video["length"]
        for mask in filter(None, one["segmentations"]):
            assert coco_mask.decode(mask).shape == (video["height"], video["width"])
    assert content["annotations"][0]["segmentations"][2] is None
    assert content["annotations"][-1]["segmentations"] == [None, None]  # nowhere in the video, and still in the file


def test_pycocotools_scores_the_file_against_itself(found: Predictions, tmp_path: Path) -> None:
    written(write_coco_frames, found, tmp_path)
    truth = loaded(tmp_path / "a.json")
    results = json.loads((tmp_path / "a.json").read_text())["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        scores = COCOeval(truth, truth.loadRes(results), "segm")
        scores.params.areaRng = scores.params.areaRng[:1]
        scores.params.areaRngLbl = scores.params.areaRngLbl[:1]
        scores.evaluate()
        scores.accumulate()
    precision: np.ndarray = scores.eval["precision"]
    assert (precision[precision > -1] == 1.0).all()
    assert (precision > -1).any()
