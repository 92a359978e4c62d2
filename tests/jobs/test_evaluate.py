"""jobs/evaluate.py on real samples: predictions that are the truth, a little spoilt, and files for servers."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from jobs.evaluate import EvaluateConfig, main
from jobs.impl.evaluate import evaluate
from patience import PATIENCE
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.predictions import Prediction, predictions_table
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.scoring.baselines import whole_frame
from pipelines.scoring.davis import truth_maps
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import read_truths
from pipelines.sources.catalog import entry_of
from sgmg.masks import rles_to_masks

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
on_ray = pytest.mark.usefixtures("ray_local")

Spoilt = Callable[[VideoTruth], Sequence[Prediction]]


@pytest.fixture
def truth(data_kit: Path) -> str:
    return str(data_kit / "refytvos_gt/valid")


def prepared(tmp_path: Path, raw: Path, dataset: str, split: str) -> str:
    out = Folder(str(tmp_path / f"{dataset}-{split}")).make()
    source = entry_of(dataset).open(Folder(str(raw)), split)
    plans = plan_shards(source, {}, 2)
    for plan in plans:
        ShardWriter(source, out).write(plan)
    finish(plans, source, out, {})
    return out.path()


def run_of(tmp_path: Path, truth: str, predict: Spoilt = whole_frame) -> str:
    """A folder of predictions of everything in the truth."""
    folder = Folder(str(tmp_path / "run")).make()
    for number, one in enumerate(read_truths(truth)):
        buffer = pa.BufferOutputStream()
        pq.write_table(predictions_table(list(predict(one))), buffer)
        folder.write(f"predictions/{number}.parquet", buffer.getvalue().to_pybytes())
    return folder.path()


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.slow
@on_ray
def test_scores_go_to_files_to_the_screen_and_to_mlflow(tmp_path: Path, truth: str, capsys) -> None:
    out, storage = tmp_path / "scores", str(tmp_path / "runs")
    run = run_of(tmp_path, truth)
    assert main(EvaluateConfig((truth,), str(out), run, storage=storage)) == Exit.CLEAN
    said = capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    assert "ref-youtube-vos valid: 9 scores of 3 videos" in said
    assert "paper Video-Swin-B" in said
    assert "65.7" in said
    rows = pq.read_table(out / "expressions.parquet").to_pylist()
    assert scores["figures"]["J"] == pytest.approx(np.mean([row["j"] for row in rows]))
    assert len(list(csv.DictReader((out / "expressions.csv").read_text().splitlines()))) == len(rows) == 9
    (summary, *_) = csv.DictReader((out / "summary.csv").read_text().splitlines())
    assert float(summary["ours"]) == scores["figures"]["J&F"]
    assert float(summary["paper Video-Swin-T"]) == 0.62
    kept = MlflowClient(f"sqlite:///{storage}/mlflow.db").get_run(said.split()[-1]).data.metrics
    assert kept["ref-youtube-vos_valid/J_and_F"] == pytest.approx(scores["figures"]["J&F"])


@pytest.mark.slow
@on_ray
def test_the_worst_and_the_best_are_drawn_on_their_frames(tmp_path: Path, data_kit: Path, truth: str) -> None:
    frames = prepared(tmp_path, data_kit / "refytvos", "ref-youtube-vos", "valid")
    out, run = tmp_path / "scores", run_of(tmp_path, truth)
    with pytest.raises(ValueError, match="--frames"):
        evaluate(EvaluateConfig((truth,), str(out), run, pictures=2))
    summary = evaluate(EvaluateConfig((truth,), str(out), run, pictures=2, frames=(frames,)))
    assert [name.split("-")[0] for name in summary["pictures"]] == ["worst", "worst", "best", "best"]
    for name in summary["pictures"]:
        with Image.open(out / "pictures" / name) as picture:
            red, _, blue = np.asarray(picture.convert("RGB"))[0].astype(int).mean(axis=0)
            assert red > blue + 40  # the whole frame is edged


@pytest.mark.slow
@on_ray
def test_a_zip_has_the_scores_of_the_predictions_it_was_made_of(tmp_path: Path, truth: str) -> None:
    with zipfile.ZipFile(tmp_path / "anyones.zip", "w") as archive:
        for one in read_truths(truth):
            for said in whole_frame(one):
                for name, mask in zip(said.frame_names, rles_to_masks(said.queries[0].rle, one.size), strict=True):
                    archive.writestr(f"Annotations/{one.video}/{said.expression}/{name}.png", png(mask * np.uint8(255)))
    run = run_of(tmp_path, truth)
    ours = evaluate(EvaluateConfig((truth,), str(tmp_path / "a"), run))
    theirs = evaluate(EvaluateConfig((truth,), str(tmp_path / "b"), submission=str(tmp_path / "anyones.zip")))
    assert theirs["figures"] == ours["figures"]
    assert theirs["rows"] == 9


@pytest.mark.slow
@on_ray
def test_a_zip_of_davis_is_scored_by_annotator(tmp_path: Path, data_kit: Path) -> None:
    folder = str(data_kit / "refdavis")
    with zipfile.ZipFile(tmp_path / "davis.zip", "w") as archive:
        for one in read_truths(folder):
            for annotator in (0, 1):
                for number, ids in enumerate(truth_maps(one)):
                    kept = ids * np.uint8(annotator == 0 or number % 2)
                    archive.writestr(f"anno_{annotator}/{one.video}/{number:05d}.png", png(kept))
    summary = evaluate(EvaluateConfig((folder,), str(tmp_path / "a"), submission=str(tmp_path / "davis.zip")))
    found = summary["figures"]
    assert found["J&F annotator 0"] == 1.0
    assert found["J&F annotator 1"] == pytest.approx(0.5, abs=0.05)
    assert found["J&F"] == pytest.approx((1 + found["J&F annotator 1"]) / 2)
    assert found["strict-id J&F"] > 0.7


@pytest.mark.slow
@on_ray
def test_refcoco_has_masks_and_boxes(tmp_path: Path, data_kit: Path) -> None:
    truth = prepared(tmp_path, data_kit / "refcoco", "refcoco", "val")
    summary = evaluate(EvaluateConfig((truth,), str(tmp_path / "a"), run_of(tmp_path, truth), pictures=1))
    assert 0 < summary["figures"]["overall_iou"] < summary["figures"]["box overall_iou"] < 1
    assert summary["paper"] == {"overall_iou": [None, 0.763]}
    assert len(summary["pictures"]) == 2


def test_coco_results_are_scored_by_their_annotation_file(tmp_path: Path, data_kit: Path) -> None:
    expected = json.loads((data_kit / "results/a2d_eval/expected.json").read_text())
    config = EvaluateConfig(
        (str(data_kit / expected["ground_truth"]),),
        str(tmp_path / "a"),
        submission=str(data_kit / "results/a2d_eval/predictions.json"),
    )
    assert evaluate(config)["figures"]["mAP"] == pytest.approx(expected["AP 0.5:0.95"], abs=1e-6)
    with pytest.raises(JobError, match="the one annotation file"):
        evaluate(replace(config, truth=(str(data_kit / "a2d"),)))


def test_scores_are_not_written_over_the_config_of_predictions(tmp_path: Path, truth: str) -> None:
    run = run_of(tmp_path, truth)
    config = Path(run, "config.json")
    config.write_text('{"made_by": {"fingerprint": "a"}}')
    for out in (run, f"{run}/"):
        with pytest.raises(JobError, match=f"{run} holds predictions, .* for instance {run}/scores"):
            evaluate(EvaluateConfig((truth,), out, run))
    empty = tmp_path / "of a run without a prediction"
    empty.mkdir()
    (empty / "config.json").write_bytes(config.read_bytes())
    with pytest.raises(JobError, match="holds predictions"):
        evaluate(EvaluateConfig((truth,), str(empty), run))
    assert config.read_text() == '{"made_by": {"fingerprint": "a"}}'


@pytest.mark.slow
def test_the_command_says_what_is_missing(tmp_path: Path, truth: str) -> None:
    run = run_of(tmp_path, truth, lambda one: whole_frame(one)[1:])
    words = ["--predictions", run, "--truth", truth, "--out", str(tmp_path / "scores")]
    done = subprocess.run(
        [sys.executable, "jobs/evaluate.py", *words], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == Exit.FAILED
    assert "error: 3 things that the truth asks for are not predicted: video 7e4be0e9ca, expression 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "scores" / "scores.json").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either --predictions or --submission"),
        ({"predictions": "a", "submission": "b"}, "either --predictions or --submission"),
        ({"predictions": "a", "truth": ()}, "at least one folder"),
        ({"predictions": "a", "mlflow_run": "b"}, "--mlflow-run needs --storage"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict, message: str) -> None:
    with pytest.raises(JobError, match=message):
        EvaluateConfig(**{"truth": ("x",), "out": "y"} | values)
