"""Whatever predict, submit and evaluate are given wrong, they say in a sentence, and end with exit code 1."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import RayError

from jobs import evaluate, predict, submit
from jobs.common.cli import run
from jobs.evaluate import EvaluateConfig
from jobs.impl.evaluate import evaluate as scored
from jobs.predict import PredictConfig
from jobs.submit import SubmitConfig
from pipelines.errors import Exit, root_cause
from pipelines.files import Folder
from pipelines.ledger import PREDICTIONS
from pipelines.predictions import Prediction, QueryTrack, prediction_of, predictions_table
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.scoring.baselines import whole_frame
from pipelines.scoring.truth_parts import read_truths
from pipelines.sources.catalog import entry_of
from prepared_data import tiny_checkpoint
from training_runs import prepared

on_ray = pytest.mark.usefixtures("ray_local")
Say = Callable[..., str]
CONFIGS = {evaluate: EvaluateConfig, predict: PredictConfig, submit: SubmitConfig}


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a job as its command line does, lets it fail, and gives the sentence it ends with."""

    def say(job: Any, **told: Any) -> str:
        words = [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        with pytest.raises(SystemExit) as ended:
            run(CONFIGS[job], job.main, words)
        assert ended.value.code == Exit.FAILED
        said = capsys.readouterr().err
        assert said.count("error: ") == 1
        return said.partition("error: ")[2]

    return say


@pytest.fixture(scope="module")
def ytvos(data_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared, with its truth."""
    out = tmp_path_factory.mktemp("prepared") / "train"
    prepared("ref-youtube-vos", data_kit / "refytvos", "train", out, rows_per_shard=2)
    return out


@pytest.fixture(scope="module")
def predicted(ytvos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of all of it."""
    return predictions_of(ytvos, tmp_path_factory.mktemp("run"))


def predictions_of(truth: Path, out: Path) -> Path:
    (out / PREDICTIONS).mkdir(parents=True)
    for one in read_truths(str(truth)):
        pq.write_table(predictions_table(whole_frame(one)), out / PREDICTIONS / f"{one.video}.parquet")
    return out


def prepared_small(raw: Path, out: Path) -> None:
    """With frames of 130 pixels, as --short-side makes them."""
    source, folder = entry_of("ref-youtube-vos").open(Folder(str(raw)), "train"), Folder(str(out)).make()
    plans = plan_shards(source, {}, 2)
    for plan in plans:
        ShardWriter(source, folder, 130, 95).write(plan)
    finish(plans, source, folder, {})


def spoilt(run: Path, out: Path, change: Callable[[Prediction], Prediction]) -> Path:
    """A copy in which something is different about the predictions of the first video."""
    shutil.copytree(run, out)
    file = min((out / PREDICTIONS).iterdir())
    rows = [change(prediction_of(row)) for row in pq.read_table(file).to_pylist()]
    pq.write_table(predictions_table(rows), file)
    return out


def with_a_damaged_mask(one: Prediction) -> Prediction:
    (query,) = one.queries
    return replace(one, queries=(QueryTrack(("zzzz", *query.rle[1:]), query.boxes, query.scores),))


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As a disk that is full: writing more is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_predictions_of_other_data_are_told_before_anything_is_started(
    say: Say, predicted: Path, data_kit: Path, tmp_path: Path
) -> None:
    prepared("refcoco", data_kit / "refcoco", "val", tmp_path / "refcoco")
    told = {"predictions": predicted, "out": tmp_path / "scores"}
    assert "are of ref-youtube-vos, the truth is of refcoco" in say(evaluate, truth=tmp_path / "refcoco", **told)
    truth = data_kit / "refytvos_gt/valid"
    assert "are of split train, the truth is of valid" in say(evaluate, truth=truth, **told)
    annotations = data_kit / "refcoco/refcoco/instances_refcoco_val.json"
    assert "is a single file, which is the ground truth of --submission FILE.json" in say(
        evaluate, truth=annotations, **told
    )


def test_what_is_nowhere_is_named(say: Say, predicted: Path, ytvos: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    told = {"predictions": predicted, "truth": ytvos, "out": out}
    assert f"{nowhere} holds no truth" in say(evaluate, **told | {"truth": nowhere})
    assert f"{nowhere}/predictions holds no predictions" in say(evaluate, **told | {"predictions": nowhere})
    assert f"{nowhere} holds no manifest.json" in say(evaluate, **told, frames=nowhere, pictures=1)
    told = {"truth": ytvos, "out": out}
    assert f"{nowhere}.zip does not exist" in say(evaluate, **told, submission=f"{nowhere}.zip")
    told = {"truth": f"{nowhere}.json", "out": out}
    assert f"{nowhere}.json does not exist" in say(evaluate, **told, submission=f"{nowhere}.json")
    told = {"predictions": predicted, "format": "ref-youtube-vos", "out": out / "a.zip"}
    assert "Give the folder of that dataset as its owners distribute it" in say(submit, **told, meta=nowhere)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("{}", "There is no list of results"),
        ('["a"]', "Number 0 of the results has no image_id, score, segmentation"),
        ('[{"image_id": 1, "score": 1}]', "Number 0 of the results has no segmentation"),
        (
            '[{"image_id": 1, "score": 1, "segmentation": {"size": [4, 6], "counts": "h0"}}]',
            "Image 1: its RLE has size [4, 6], but height and width are [522, 640]. Make",
        ),
        ('[{"image_id": 99, "score": 1, "segmentation": {}}]', "1 images of the results are not in the truth"),
        ('[{"image_id"', "is no whole JSON"),
    ],
)
def test_a_file_of_results_that_is_none_is_told(
    say: Say, data_kit: Path, tmp_path: Path, results: str, message: str
) -> None:
    file, truth = tmp_path / "results.json", data_kit / "refcoco/refcoco/instances_refcoco_val.json"
    file.write_text(results)
    said = say(evaluate, submission=file, truth=truth, out=tmp_path / "scores")
    assert message in said
    assert str(file) in said


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([], "There is no list of images"),
        ({"images": [{}], "annotations": []}, "Number 0 of the images has no id, height, width"),
        ({"images": [{"id": 1, "height": 2, "width": 2}], "annotations": []}, "Image 1 has 0 annotations"),
    ],
)
def test_a_file_of_annotations_that_is_none_is_told(say: Say, tmp_path: Path, truth: Any, message: str) -> None:
    file, results = tmp_path / "truth.json", tmp_path / "results.json"
    file.write_text(json.dumps(truth))
    results.write_text("[]")
    assert message in say(evaluate, submission=results, truth=file, out=tmp_path / "scores")


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left_there(
    say: Say, predicted: Path, ytvos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Ray that another test has started in this process would write the zip, in a process without the limit below.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.zip").mkdir()
    said = say(evaluate, predictions=predicted, truth=ytvos, out=tmp_path / "file" / "scores")
    assert "cannot be created" in said
    told = {"predictions": predicted, "format": "ref-youtube-vos"}
    for out in (tmp_path / "file" / "a.zip", tmp_path / "folder.zip"):
        assert f"--out {out} cannot be written" in say(submit, **told, out=out)
    with files_no_longer_than(5000):
        assert "it was not touched. Free disk space" in say(submit, **told, out=tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.zip"]


def test_a_file_name_that_is_not_of_the_format_is_refused(say: Say, predicted: Path, tmp_path: Path) -> None:
    for form, name, suffix in (("ref-youtube-vos", "a.json", ".zip"), ("youtube-vis", "a.zip", ".json")):
        said = say(submit, predictions=predicted, format=form, out=tmp_path / name)
        assert f"--format {form} is a {suffix} file, but --out is {tmp_path / name}" in said
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_dataset_is_no_meta(say: Say, data_kit: Path, tmp_path: Path) -> None:
    prepared("refcoco", data_kit / "refcoco", "val", tmp_path / "data")
    told = {"predictions": predictions_of(tmp_path / "data", tmp_path / "run"), "format": "coco"}
    said = say(submit, **told, out=tmp_path / "a.json", meta=data_kit / "a2d")
    assert f"--meta {data_kit / 'a2d'} cannot be compared with predictions of refcoco val" in said


def test_a_damaged_checkpoint_is_told_before_anything_is_started(say: Say, ytvos: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    said = say(predict, data=ytvos, checkpoint=checkpoint, out=tmp_path / "out")
    assert said.startswith(f"{weights} is damaged or cut short")
    assert not (tmp_path / "out").exists()


def test_what_ray_says_of_a_worker_is_cut_to_the_error_itself() -> None:
    text = (
        'ray::Predict() (pid=1)\n  File "a.py", line 3, in f\nValueError: no\n\nThe above exception was the cause:\n\n'
        'ray::Predict() (pid=1)\n  File "b.py", line 5, in g\nsafetensors.Damaged: the file is cut short\nMend it.'
    )
    assert root_cause(RayError(text)) == "Damaged: the file is cut short\nMend it."
    assert root_cause(RayError("the node ran out of memory: wait")) == "the node ran out of memory: wait"


@pytest.mark.slow
@on_ray
def test_a_place_that_takes_no_predictions_is_told(say: Say, ytvos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    told = {"data": ytvos, "checkpoint": tiny_checkpoint(tmp_path / "checkpoint")}
    assert "cannot be written" in say(predict, **told, out=tmp_path / "file" / "out")


@pytest.mark.slow
@on_ray
def test_damage_in_truth_or_predictions_is_found_and_named(
    say: Say, predicted: Path, ytvos: Path, tmp_path: Path
) -> None:
    truth = shutil.copytree(ytvos, tmp_path / "truth")
    first, second, *_ = sorted(truth.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-50])
    second.unlink()
    said = say(evaluate, predictions=predicted, truth=truth, out=tmp_path / "scores")
    damaged, missing = said.splitlines()
    assert damaged.startswith(f"{first} is damaged or no Parquet file (")
    assert "remove it and run the job that wrote it again" in damaged
    assert missing.startswith(f"{second} cannot be read (")
    assert missing.endswith("Prepare the data, or unpack the truth, again.")

    run = spoilt(predicted, tmp_path / "run", with_a_damaged_mask)
    video = min((run / PREDICTIONS).iterdir()).stem
    said = say(evaluate, predictions=run, truth=ytvos, out=tmp_path / "scores")
    assert f"{video}, frame 00000, expression 0: RLE 'zzzz'" in said
    assert not (tmp_path / "scores" / "scores.json").exists()


@pytest.mark.slow
@on_ray
def test_smaller_frames_are_no_truth_but_can_be_drawn_on(
    say: Say, predicted: Path, ytvos: Path, data_kit: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    prepared_small(data_kit / "refytvos", small)
    said = say(evaluate, predictions=predicted, truth=small, out=tmp_path / "scores")
    assert "prepared at the original size (jobs/prepare.py without --short-side, into another --out" in said
    told = {"pictures": 1, "frames": (str(small),)}
    config = EvaluateConfig((str(ytvos),), str(tmp_path / "scores"), str(predicted), **told)
    assert len(scored(config)["pictures"]) == 2


@pytest.mark.slow
@on_ray
def test_mlflow_that_does_not_take_scores_is_told(say: Say, predicted: Path, ytvos: Path, tmp_path: Path) -> None:
    told = {"predictions": predicted, "truth": ytvos, "out": tmp_path / "scores"}
    said = say(evaluate, **told, storage=tmp_path / "runs", mlflow_run="nobody")
    assert said.startswith("--mlflow-run nobody was not found at sqlite:///")
    assert not (tmp_path / "scores" / "scores.json").exists()
    (tmp_path / "file").write_text("in the way")
    said = say(evaluate, **told, storage=tmp_path / "file")
    assert said.startswith(f"The scores are in {tmp_path / 'scores'}, but MLflow in --storage {tmp_path / 'file'}")
    assert (tmp_path / "scores" / "scores.json").exists()
