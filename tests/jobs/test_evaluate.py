"""jobs/evaluate.py on real samples: predictions that are the truth, a little spoilt, and files for servers."""

import csv
import io
import json
import re
import shutil
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

from jobs import submit
from jobs.evaluate import EvaluateConfig, main
from jobs.impl.evaluate import evaluate, remove_earlier
from patience import PATIENCE
from pipelines.errors import Exit, JobError
from pipelines.files import UNFINISHED, Folder
from pipelines.manifest import SYNTHETIC
from pipelines.predictions import Prediction, predictions_table
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.scoring.baselines import whole_frame
from pipelines.scoring.comparison import COMPARISON
from pipelines.scoring.davis import truth_maps
from pipelines.scoring.summary import SCORES
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
    assert "paper Video-Swin" not in said
    assert (
        "the paper's figures are of ref-youtube-vos valid, 202 videos with 834 expressions: not of these data" in said
    )
    rows = pq.read_table(out / "expressions.parquet").to_pylist()
    assert scores["figures"]["J"] == pytest.approx(np.mean([row["j"] for row in rows]))
    assert len(list(csv.DictReader((out / "expressions.csv").read_text().splitlines()))) == len(rows) == 9
    (summary, *_) = csv.DictReader((out / "summary.csv").read_text().splitlines())
    assert float(summary["ours"]) == scores["figures"]["J&F"]
    assert summary["paper Video-Swin-T"] == ""
    assert (scores["official"], scores["synthetic"]) == (False, False)
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
    assert summary["paper"] == {}
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


@pytest.mark.slow
@on_ray
def test_a_zip_has_one_score_whatever_form_of_truth_is_given(tmp_path: Path, data_kit: Path) -> None:
    kit, raw, video = data_kit / "refytvos", tmp_path / "raw", "31f1e819d1"
    for folder in ("train/JPEGImages", "train/Annotations"):
        shutil.copytree(kit / folder / video, raw / folder / video)
    for name in ("meta_expressions/train/meta_expressions.json", "train/meta.json"):
        (raw / name).parent.mkdir(exist_ok=True, parents=True)
        listed = json.loads((kit / name).read_text())["videos"][video]
        if "expressions" in listed:
            listed["expressions"]["6"] = {"exp": " ", "obj_id": "1"}  # prepare leaves it out, submit puts it in
        for one in listed.get("objects", {}).values():
            one["category"] = "thing"
        (raw / name).write_text(json.dumps({"videos": {video: listed}}))
    said = json.loads((raw / "meta_expressions/train/meta_expressions.json").read_text())["videos"][video]
    for path in (raw / "train/Annotations" / video).iterdir():  # its second object is never there
        ids = np.asarray(Image.open(path))
        ids = np.where(ids == 2, 0, ids)
        Image.fromarray(ids).save(path)
        for expression, one in said["expressions"].items():  # as in the valid.zip of 2026
            folder = tmp_path / "by sentence/Annotations" / video / expression
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((ids == int(one["obj_id"])).astype(np.uint8) * 255).save(folder / path.name)
    for folder in (raw / "train", tmp_path / "by sentence"):
        shutil.copy(raw / "meta_expressions/train/meta_expressions.json", folder)
    data = prepared(tmp_path, raw, "ref-youtube-vos", "train")
    run, zipped = run_of(tmp_path, data, half_right), str(tmp_path / "a.zip")
    submit.main(submit.SubmitConfig(run, "ref-youtube-vos", zipped, meta=str(raw)))
    found = [
        evaluate(EvaluateConfig((truth,), str(tmp_path / f"scores {number}"), submission=zipped))
        for number, truth in enumerate((data, str(raw / "train"), str(tmp_path / "by sentence")))
    ]
    assert found[0]["figures"] == found[1]["figures"] == found[2]["figures"]
    assert found[0]["by_attribute"] == found[1]["by_attribute"] == found[2]["by_attribute"]
    assert [one["rows"] for one in found] == [6, 6, 6]
    rows = pq.read_table(tmp_path / "scores 0" / "expressions.parquet").to_pylist()
    assert [row["visible"] for row in rows if row["expression"] in ("2", "3")] == [0.0, 0.0]


def test_data_without_truth_are_told_before_anything_is_done(tmp_path: Path, data_kit: Path, truth: str) -> None:
    data = prepared(tmp_path, data_kit / "refytvos", "ref-youtube-vos", "valid")
    out, run = tmp_path / "scores", run_of(tmp_path, truth)
    for given in (EvaluateConfig((data,), str(out), run), EvaluateConfig((data,), str(out), compare=(run, f"{run}/."))):
        with pytest.raises(ValueError, match="The truth of ref-youtube-vos valid is not in these data"):
            main(given)
    assert not out.exists()


@pytest.mark.slow
@on_ray
def test_runs_are_compared_and_their_largest_differences_drawn(
    tmp_path: Path, data_kit: Path, truth: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = prepared(tmp_path, data_kit / "refytvos", "ref-youtube-vos", "valid")
    whole, half = run_of(tmp_path, truth), run_of(tmp_path / "better", truth, half_right)
    out = tmp_path / "comparison"
    config = EvaluateConfig((truth,), str(out), compare=(whole, half), frames=(frames,), pictures=2)
    assert main(config) == Exit.CLEAN
    said = capsys.readouterr().out
    found = json.loads((out / "comparison.json").read_text())
    assert list(found["runs"]) == ["run", "better"]
    first, second = found["total"]["scores"]
    assert second > first
    assert found["total"]["intervals"] == [], "three videos are too few"
    assert re.search(rf"^all +9 +{100 * first:.1f} +{100 * second:.1f}  \+{100 * (second - first):.1f}$", said, re.M)
    lines = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    gains = [float(line["better over run"]) for line in lines]
    assert len(lines) == 9
    assert np.mean(gains) == pytest.approx(second - first)
    assert_pictures_are_there(out)
    fewer = run_of(tmp_path / "fewer", truth, lambda one: whole_frame(one)[1:])
    with pytest.raises(JobError, match="fewer: 3 things that the truth asks for are not predicted"):
        main(replace(config, compare=(whole, fewer), pictures=0))
    zipped = tmp_path / "better.zip"
    submit.main(submit.SubmitConfig(half, "ref-youtube-vos", str(zipped)))
    main(replace(config, compare=(half, str(zipped)), out=str(tmp_path / "same"), pictures=0))
    assert json.loads((tmp_path / "same/comparison.json").read_text())["total"]["scores"] == [second, second]


def assert_pictures_are_there(out: Path) -> None:
    """Those that a comparison lists are there, no others, and on its page."""
    names = json.loads((out / COMPARISON).read_text())["pictures"]
    assert names == [path.name for path in sorted((out / "pictures").iterdir())]
    page = (out / "index.html").read_text()
    assert re.findall(r'src="pictures/(.*?)"', page) == names
    for name in names:
        with Image.open(out / "pictures" / name) as picture:
            assert picture.width == 1200


def half_right(truth: VideoTruth) -> list[Prediction]:
    """The truth itself of the first sentences, and the whole frame of the others."""
    found = whole_frame(truth)
    for place, expression in enumerate(truth.labelled_expressions[: len(found) // 2 + 1]):
        rles = tuple(truth.rle(expression, frame) or "" for frame in truth.scored_frames(expression))
        found[place] = replace(found[place], queries=(replace(found[place].queries[0], rle=rles),))
    return found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "either --predictions, --submission or --compare"),
        ({"predictions": "a", "submission": "b"}, "either --predictions, --submission or --compare"),
        ({"predictions": "a", "compare": ("b", "c")}, "either --predictions, --submission or --compare"),
        ({"compare": ("b",)}, "--compare b is one run. Give two or more"),
        ({"compare": ("b", "c"), "storage": "runs"}, "leave it out beside --compare"),
        ({"predictions": "a", "truth": ()}, "at least one folder"),
        ({"predictions": "a", "mlflow_run": "b"}, "--mlflow-run needs --storage"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict, message: str) -> None:
    with pytest.raises(JobError, match=message):
        EvaluateConfig(**{"truth": ("x",), "out": "y"} | values)


@pytest.mark.slow
@on_ray
def test_objects_of_davis_and_pictures_of_refcoco_are_compared_and_drawn(tmp_path: Path, data_kit: Path) -> None:
    davis, images = data_kit / "refdavis", prepared(tmp_path, data_kit / "refcoco", "refcoco", "val")
    frames, data = prepared(tmp_path, davis, "ref-davis17", "valid"), str(davis)
    for name, keep in (("whole", 1), ("half", 2)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for one in read_truths(data):
                for number, ids in enumerate(truth_maps(one)):
                    archive.writestr(f"anno_0/{one.video}/{number:05d}.png", png(ids * np.uint8(number % keep == 0)))
    zips = (str(tmp_path / "whole.zip"), str(tmp_path / "half.zip"))
    out = tmp_path / "comparison of davis"
    main(EvaluateConfig((data,), str(out), compare=zips, frames=(frames,), pictures=2))
    assert json.loads((out / COMPARISON).read_text())["total"]["scores"] == [1.0, pytest.approx(0.5, abs=0.05)]
    assert_pictures_are_there(out)
    runs = (run_of(tmp_path / "whole", images), run_of(tmp_path / "right", images, half_right))
    out = tmp_path / "comparison of refcoco"
    main(EvaluateConfig((images,), str(out), compare=runs, pictures=2))
    found = json.loads((out / COMPARISON).read_text())
    assert found["figure"] == "mean IoU of the sentences"
    assert found["total"]["scores"][0] < found["total"]["scores"][1]
    assert_pictures_are_there(out)


@pytest.mark.slow
@on_ray
def test_a_comparison_says_what_is_missing_and_replaces_an_earlier_one(
    tmp_path: Path, data_kit: Path, truth: str, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = prepared(tmp_path, data_kit / "refytvos", "ref-youtube-vos", "valid")
    runs = run_of(tmp_path, truth), run_of(tmp_path / "fewer", truth, lambda one: half_right(one)[1:])
    out = tmp_path / "comparison"
    config = EvaluateConfig((truth,), str(out), compare=runs, missing_as_empty=True, frames=(frames,), pictures=4)
    main(config)
    note = "fewer: 3 missing, scored as empty"
    assert note in capsys.readouterr().out.splitlines()
    found = json.loads((out / COMPARISON).read_text())
    assert found["notes"] == [note]
    assert f"<p>{note}.</p>" in (out / "index.html").read_text()
    assert len(found["pictures"]) == 4
    (out / "pictures" / f"{UNFINISHED}0-a.png").write_bytes(b"what a kill leaves")
    main(replace(config, pictures=1))
    assert len(json.loads((out / COMPARISON).read_text())["pictures"]) == 1
    assert_pictures_are_there(out)


@pytest.mark.slow
@on_ray
def test_drawn_data_are_not_called_like_the_dataset_of_their_layout_in_mlflow(
    tmp_path: Path, data_kit: Path, truth: str
) -> None:
    storage, drawn = str(tmp_path / "runs"), shutil.copytree(truth, tmp_path / "drawn/valid")
    (drawn / SYNTHETIC).touch()
    images = prepared(tmp_path, data_kit / "refcoco", "refcoco+", "val")
    for number, data in enumerate((str(drawn), images)):
        run = run_of(tmp_path / str(number), data)
        main(EvaluateConfig((data,), str(tmp_path / f"scores {number}"), run, storage=storage))
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == "evaluate")
    first, second = sorted(client.search_runs([experiment.experiment_id]), key=lambda one: one.info.start_time)
    assert {name.split("/")[0] for name in first.data.metrics} == {"synthetic-ref-youtube-vos_valid"}
    assert str(first.info.run_name).startswith("synthetic-ref-youtube-vos_valid-")
    assert [one.path for one in client.list_artifacts(first.info.run_id, "scores")] == [
        "scores/synthetic-ref-youtube-vos_valid.txt"
    ]
    assert "refcoco_plus_val/mAP" in second.data.metrics


def test_what_an_earlier_run_wrote_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / COMPARISON).write_text('{"pictures": ["difference-01-a.png", "difference-02-b.png"]}')
    for name in ("videos.csv", "notes.txt", f"{UNFINISHED}0-index.html"):
        (tmp_path / name).touch()
    for name in ("difference-01-a.png", "mine.png", f"{UNFINISHED}0-difference-01-a.png"):
        (tmp_path / "pictures" / name).touch()
    remove_earlier(Folder(str(tmp_path)), COMPARISON, ("comparison.csv", "videos.csv"))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["notes.txt", "pictures/mine.png"]
    (tmp_path / COMPARISON).write_text("{}")
    with pytest.raises(JobError, match=r"comparison\.json is damaged .* Remove it, and run again"):
        remove_earlier(Folder(str(tmp_path)), COMPARISON)


@pytest.mark.parametrize(
    ("there", "values", "message"),
    [
        (COMPARISON, {"predictions": "a"}, "holds a comparison of runs (comparison.json), not the scores of a run"),
        (SCORES, {"compare": ("a", "b")}, "holds the scores of a run (scores.json), not a comparison of runs"),
    ],
)
def test_scores_and_comparisons_do_not_replace_each_other(
    tmp_path: Path, truth: str, there: str, values: dict, message: str
) -> None:
    (tmp_path / there).write_text('{"pictures": []}')
    with pytest.raises(JobError, match=f"{re.escape(message)}. Choose another --out"):
        main(EvaluateConfig((truth,), str(tmp_path), **values))
    assert [path.name for path in tmp_path.iterdir()] == [there]
