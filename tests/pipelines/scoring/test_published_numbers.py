"""The official evaluators' numbers of real result files, reproduced through our rows and figures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.images import object_map
from pipelines.predictions import Prediction, QueryTrack
from pipelines.scoring.coco_files import coco_averages, coco_rows, read_json
from pipelines.scoring.distributed import score_run
from pipelines.scoring.prediction_source import open_predictions
from pipelines.scoring.score import TrackRow, figures, score_video
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import read_truths, truth_parts
from sgmg.masks import rle_union
from sgmg.metrics import contour_accuracy, region_similarity

DAVIS = {"J": "J-Mean", "J recall": "J-Recall", "J decay": "J-Decay"}
DAVIS |= {name.replace("J", "F"): said.replace("J", "F") for name, said in DAVIS.items()} | {"J&F": "J&F-Mean"}
COCO = {"mAP": "AP 0.5:0.95", "AP50": "AP 0.5", "AP75": "AP 0.75", "mean_iou": "mean_iou", "overall_iou": "overall_iou"}
COCO |= {f"AP {name}": f"AP 0.5:0.95 {name[0].upper()}" for name in ("small", "medium", "large")}
METHODS = {"unsupervised": "rvos", "semi-supervised": "osvos"}


@pytest.fixture(scope="module")
def davis(data_kit: Path) -> Path:
    return data_kit / "results/davis_eval"


def merged(davis: Path, truth: VideoTruth, protocol: str) -> Prediction:
    """The result PNGs of one sequence as a predictor would have merged them for annotator 0."""
    folder = davis / protocol / METHODS[protocol] / truth.video
    height, width = truth.size
    t = len(truth.frame_names)
    nothing = QueryTrack((rle_union([], truth.size),) * t, ((0.0, 0.0, 0.0, 0.0),) * t, (0.0,) * t)
    return Prediction(
        dataset="ref-davis17",
        split="valid",
        video=truth.video,
        expression="0",
        text="",
        width=width,
        height=height,
        frame_names=truth.frame_names,
        queries=(nothing,),
        score=0.0,
        fingerprint="",
        source="",
        source_fingerprint="",
        annotator=0,
        merged=tuple((folder / f"{name}.png").read_bytes() for name in truth.frame_names),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("protocol", "prefix"), [("unsupervised", ""), ("semi-supervised", "strict-id ")])
def test_davis_global_and_per_object_numbers_come_out_of_the_distributed_path(
    davis: Path, written: Any, protocol: str, prefix: str
) -> None:
    expected = json.loads((davis / "expected.json").read_text())[protocol]
    folder = str(davis / "DAVIS")
    run = written([merged(davis, truth, protocol) for truth in read_truths(folder)])
    rows = score_run(truth_parts(folder), open_predictions(run)).rows
    found = figures(rows)
    assert {said: found[f"{prefix}{name}"] for name, said in DAVIS.items()} == pytest.approx(
        expected["global"], abs=1e-6
    )
    ours = [row for row in rows if isinstance(row, TrackRow) and row.protocol == (prefix.strip() or protocol)]
    for sequence in {row.video for row in ours}:
        tracks = [row for row in ours if row.video == sequence]
        for number, row in enumerate(tracks, start=1):
            scores = {"J-Mean": row.j, "J-Recall": row.j_recall, "J-Decay": row.j_decay}
            scores |= {"F-Mean": row.f, "F-Recall": row.f_recall, "F-Decay": row.f_decay}
            assert scores == pytest.approx(expected["per_object"][f"{sequence}_{number}"], abs=1e-6)
    assert len(ours) == len(expected["per_object"])


@pytest.mark.slow
def test_davis_numbers_of_every_frame(davis: Path) -> None:
    expected = json.loads((davis / "expected.json").read_text())["per_frame_osvos_all_frames"]
    for sequence, said in expected.items():
        folders = (davis / "semi-supervised/osvos", davis / "DAVIS/Annotations_unsupervised/480p")
        results, truths = (
            np.stack([object_map((folder / sequence / f"{name}.png").read_bytes()) for name in said["frames"]])
            for folder in folders
        )
        for number, (j, f) in enumerate(zip(said["J"], said["F"], strict=True), start=1):
            assert region_similarity(results == number, truths == number) == pytest.approx(j, abs=1e-6)
            assert contour_accuracy(results == number, truths == number) == pytest.approx(f, abs=1e-6)


@pytest.mark.parametrize("name", ["a2d", "jhmdb"])
def test_coco_files_of_a2d_and_jhmdb_give_the_official_numbers(data_kit: Path, name: str) -> None:
    folder = data_kit / f"results/{name}_eval"
    expected = json.loads((folder / "expected.json").read_text())
    truth, results = read_json(str(data_kit / expected["ground_truth"])), read_json(str(folder / "predictions.json"))
    rows, missing = coco_rows(truth, results)
    found = figures(rows)
    assert not missing
    assert {said: found[ours] for ours, said in COCO.items()} == pytest.approx(
        {said: expected[said] for said in COCO.values()}, abs=1e-6
    )
    assert [found[f"P@{k}"] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == pytest.approx(expected["P@0.5..0.9"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "dataset", "split"), [("a2d", "a2d-sentences", "test"), ("jhmdb", "jhmdb-sentences", "test")]
)
def test_predictions_of_a2d_and_jhmdb_give_the_official_numbers(
    data_kit: Path, prepare: Any, name: str, dataset: str, split: str
) -> None:
    folder = data_kit / f"results/{name}_eval"
    expected = json.loads((folder / "expected.json").read_text())
    results = json.loads((folder / "predictions.json").read_text())
    truths = list(read_truths(str(prepare(name, dataset, split))))
    rows = [row for truth in truths for row in score_video(truth, of_coco(truth, results))]
    found = figures(rows)
    assert {said: found[ours] for ours, said in COCO.items()} == pytest.approx(
        {said: expected[said] for said in COCO.values()}, abs=1e-6
    )


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_cocos_own_results_give_cocos_own_numbers(data_kit: Path, kind: str) -> None:
    folder = data_kit / "results/coco_fake"
    expected = json.loads((folder / "expected.json").read_text())[kind]
    found = coco_averages(
        read_json(str(folder / "gt_2_images.json")), read_json(str(folder / f"fake{kind}_2_images.json")), kind
    )
    assert list(found.values()) == pytest.approx(expected, abs=1e-9)


def of_coco(truth: VideoTruth, results: list[dict[str, Any]]) -> list[Prediction]:
    """COCO results as the predictor would have written them."""
    found = []
    for expression in truth.labelled_expressions:
        for frame in truth.scored_frames(expression):
            name = truth.frame_names[frame]
            number = (expression.external_id or "").replace("{frame}", str(int(name)))
            own = [one for one in results if one["image_id"] == number]
            height, width = truth.size
            queries = tuple(
                QueryTrack((one["segmentation"]["counts"],), ((0.0, 0.0, 0.0, 0.0),), (one["score"],)) for one in own
            )
            found.append(
                Prediction(
                    dataset=truth.dataset,
                    split=truth.split,
                    video=truth.video,
                    expression=expression.id,
                    text=expression.text,
                    width=width,
                    height=height,
                    frame_names=(name,),
                    queries=queries,
                    score=1.0,
                    fingerprint="",
                    source="",
                    source_fingerprint="",
                )
            )
    return found
