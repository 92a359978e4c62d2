import contextlib
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.exports.coco import check_coco_results, write_coco_results
from pipelines.files import Folder
from pipelines.prediction_reader import read_predictions
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.jhmdb import JhmdbSentences
from pipelines.sources.refcoco import RefCoco
from sgmg.masks import rles_to_masks


def true_predictions(source: Source, predict: Any) -> list[Any]:
    """The truth of every expression as its best query, and beside it a worse one."""
    rows = []
    for item in source.items():
        record = source.read(item).record
        tracks = {track.id: track for track in record.objects}
        for said in record.expressions:
            frames = said.frames if said.frames is not None else range(len(record.frame_names))
            rle = [tracks[said.targets[0]].rle[frame] or "" for frame in frames]
            masks = rles_to_masks(rle, (record.height, record.width))
            row = predict(
                record.video,
                said.id,
                masks,
                np.zeros_like(masks),
                dataset=record.dataset,
                split=record.split,
                text=said.text,
                external_id=said.external_id,
                frame_names=tuple(record.frame_names[frame] for frame in frames),
            )
            rows.append(row)
    return rows


def evaluated(truth: Path, results: Path, kind: Literal["segm", "bbox"]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        evaluation = COCOeval(known, known.loadRes(str(results)), kind)
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_refcoco_results_load_beside_the_ground_truth(data_kit: Path, predict: Any, save: Any, tmp_path: Path) -> None:
    rows = true_predictions(RefCoco(Folder(str(data_kit / "refcoco")), "val"), predict)
    predictions, out = read_predictions(save({"v.parquet": rows})), Folder(str(tmp_path))
    assert write_coco_results(predictions, out, "a.json") == 2 * len(rows)
    results = json.loads((tmp_path / "a.json").read_text())
    truth = data_kit / "refcoco/refcoco/instances_refcoco_val.json"
    assert {result["image_id"] for result in results} == {
        image["id"] for image in json.loads(truth.read_text())["images"]
    }
    assert {result["category_id"] for result in results} == {1}
    for result, of_mask in zip(results, (coco_mask.toBbox(each["segmentation"]) for each in results), strict=True):
        if of_mask.any():  # xywh; our boxes end at the last pixel, COCO's one beyond it
            np.testing.assert_allclose(result["bbox"], of_mask - np.array([0, 0, 1, 1]))
    assert evaluated(truth, tmp_path / "a.json", "segm").stats[0] == pytest.approx(1.0)
    assert evaluated(truth, tmp_path / "a.json", "bbox").stats[1] == pytest.approx(1.0)
    assert check_coco_results(predictions, out, "a.json").startswith(f"{len(results)} results of {len(rows)} images")


def a2d(kit: Path) -> tuple[Source, Path]:
    truth = kit / "a2d/a2d_sentences_test_annotations_in_coco_format.json"
    return A2DSentences(Folder(str(kit / "a2d")), "test"), truth


def jhmdb(kit: Path) -> tuple[Source, Path]:
    truth = kit / "jhmdb/jhmdb_sentences_gt_annotations_in_coco_format.json"
    return JhmdbSentences(Folder(str(kit / "jhmdb"))), truth


@pytest.mark.parametrize("benchmark", [a2d, jhmdb])
def test_results_by_frame_load_beside_the_ground_truth(
    data_kit: Path, predict: Any, save: Any, tmp_path: Path, benchmark: Any
) -> None:
    source, truth = benchmark(data_kit)
    predictions = read_predictions(save({"v.parquet": true_predictions(source, predict)}))
    write_coco_results(predictions, Folder(str(tmp_path)), "a.json")
    results = json.loads((tmp_path / "a.json").read_text())
    assert {result["image_id"] for result in results} == {
        image["id"] for image in json.loads(truth.read_text())["images"]
    }
    assert [result["score"] for result in results[:2]] == [0.75, 0.625]
    assert all("bbox" not in result for result in results)
    assert evaluated(truth, tmp_path / "a.json", "segm").stats[0] == pytest.approx(1.0)


def test_expressions_without_a_name_in_the_ground_truth_are_told(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    for values, said in (
        ({"dataset": "jhmdb-sentences", "external_id": None}, "has no external id"),
        ({"dataset": "jhmdb-sentences", "external_id": "7"}, r"holds no \{frame\}"),
        ({"dataset": "refcoco", "external_id": "seven"}, "must have a number and 1 frame"),
    ):
        folder = save({"v.parquet": [predict("v", "0", blobs(), **values)]})
        with pytest.raises(ValueError, match=said):
            write_coco_results(read_predictions(folder), Folder(str(tmp_path)), "a.json")
        assert not (tmp_path / "a.json").exists()


def test_the_check_finds_results_of_other_images(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> None:
    values = {"dataset": "refcoco", "external_id": "7"}
    predictions = read_predictions(save({"v.parquet": [predict("v", "0", blobs(1), **values)]}))
    out = Folder(str(tmp_path))
    write_coco_results(predictions, out, "a.json")
    out.write("a.json", out.read("a.json").replace(b'"image_id":7', b'"image_id":8'))
    with pytest.raises(ValueError, match=r"has other images than were predicted: \['7', '8'\]"):
        check_coco_results(predictions, out, "a.json")
