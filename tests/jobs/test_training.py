"""The three training jobs on real data; where they are submitted, to a Ray of their own as people submit them."""

import json
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from labelled_data import cut_short
from patience import PATIENCE
from pipelines.errors import Exit
from ray_heads import Head, started_ray
from sgmg.checkpoints import AVERAGED, load
from training_runs import (
    A2D,
    EXPERIMENTS,
    FINETUNE,
    PRETRAIN,
    Job,
    JobServer,
    checkpoints,
    flags_of,
    made_up,
    prepared,
    run_of,
    run_served,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("training")]

SMALL = shlex.split(
    "--recipe tiny --workers 2 --cpus-per-worker 0.5 --threads 1 --short-sides 96 --sentences-per-clip 1 "
    "--global-batch 2 --clips-per-pass 1 --max-steps 2 --log-every 1"
)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_ray() as one:
        yield one


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def mlflow_run(storage: Path, job: str) -> tuple[MlflowClient, Run]:
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENTS[job])
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def artifacts(client: MlflowClient, run: Run, folder: str = "") -> set[str]:
    """All files, with their folders."""
    found: set[str] = set()
    for one in client.list_artifacts(run.info.run_id, folder):
        found |= artifacts(client, run, one.path) if one.is_dir else {one.path}
    return found


def test_pretraining_finetuning_and_a2d_follow_one_another_on_real_data(
    head: Head, job_server: JobServer, data_kit: Path, storage: Path, tmp_path: Path
) -> None:
    prepared("refcoco", data_kit / "refcoco", "train", tmp_path / "refcoco")
    prepared("refcoco", data_kit / "refcoco", "val", tmp_path / "val")
    prepared("refcoco+", data_kit / "refcoco", "val", tmp_path / "val+")
    prepared("ref-youtube-vos", data_kit / "refytvos", "train", tmp_path / "ytvos")
    prepared("a2d-sentences", data_kit / "a2d", "train", tmp_path / "a2d")
    common = ["--storage", str(storage), *SMALL]

    valid = ["--valid", str(tmp_path / "val"), str(tmp_path / "val+"), "--valid-short-side", "96"]
    pretrain = ["--data", str(tmp_path / "refcoco"), *valid, "--ema", "0.9", *common]
    code, text = head.submit("python", "jobs/pretrain_refcoco.py", *pretrain)
    assert code == 0, text
    pretrained = assert_all_is_in_mlflow(storage, PRETRAIN, tmp_path / "refcoco")
    assert_scores_are_there(storage, pretrained)
    assert_it_is_described(pretrained, tmp_path / "refcoco")

    start = ["--init", f"mlflow:{pretrained.info.run_id}", "--frames", "3"]
    # Rates of 0 teach nothing, so the second score is no better than the first.
    still = ["--lr", "0", "--backbone-lr", "0", "--text-lr", "0", "--max-steps", "6"]
    scored = ["--holdout", "1", "--valid-every-steps", "1", "--patience", "1", "--valid-short-side", "96"]
    finetune = ["--data", str(tmp_path / "ytvos"), *start, *common, *still, *scored]
    code, text = run_served(job_server, FINETUNE, finetune, tmp_path / "log of finetune")
    assert code == 0, text
    assert "step 2: no new best in 1 scores, the run ends" in text
    code, text = run_served(job_server, FINETUNE, finetune, tmp_path / "log of no more")
    assert (code, "is finished: 2 steps" in text) == (0, True), text
    finetuned = assert_all_is_in_mlflow(storage, FINETUNE, tmp_path / "ytvos")
    assert finetuned.data.params["init"] == f"mlflow:{pretrained.info.run_id}"

    start = ["--init", "models:/sgmg/2", "--multi-object", "--sentences-per-clip", "3"]
    a2d = ["--data", str(tmp_path / "a2d"), *common, *start]
    code, text = run_served(job_server, A2D, a2d, tmp_path / "log of a2d")
    assert code == 0, text
    assert_all_is_in_mlflow(storage, A2D, tmp_path / "a2d")
    together = load(run_of(A2D, storage, "tiny-tiny") / "step_00000002").model.config
    assert (together.multi_object, together.sentences_per_clip) == (True, 3)

    # Killed while it scored for the last time: the same command scores, and keeps what came of it.
    run = run_of(PRETRAIN, storage, "tiny-tiny")
    (run / "finished.json").unlink()
    (score,) = (run / "scores").glob("step_00000002.json")
    before = json.loads(score.read_text())
    assert before["sets"].keys() == {"refcoco-val", "refcoco_plus-val"}
    score.unlink()
    code, text = run_served(job_server, PRETRAIN, pretrain, tmp_path / "log of scoring")
    assert code == 0, text
    assert json.loads(score.read_text()) == before
    assert "goes on after step 2 " in text
    assert re.search(r"models:/sgmg/1 is the best of this run", text)

    # The same, but now the truth of one set is lost: no score, which is not tried again, and the best stays.
    damaged = cut_short(tmp_path / "val+")
    (run / "finished.json").unlink()
    score.unlink()
    best = (run / "best" / "model.safetensors").stat().st_mtime_ns
    code, text = run_served(job_server, PRETRAIN, pretrain, tmp_path / "log of no score")
    assert code == 0, text
    assert re.search(
        r"no score, the best checkpoint stays as it is: refcoco_plus-val: the truth of \d+ of \d+ videos", text
    )
    assert f"x {damaged}, row group 0 cannot be read" in text
    after = json.loads(score.read_text())
    assert after["score"] is None
    logged = MlflowClient(f"sqlite:///{storage}/mlflow.db").get_run(pretrained.info.run_id).data.metrics
    kept = after["sets"]["refcoco-val"]["figures"]  # of the weights; those before may be of their average
    assert kept.keys() == before["sets"]["refcoco-val"]["figures"].keys()
    assert kept == {name: logged[f"valid/refcoco-val/{name}"] for name in kept}
    assert (run / "best" / "model.safetensors").stat().st_mtime_ns == best
    assert re.search(r"models:/sgmg/1 is the best of this run", text)
    code, text = run_served(job_server, PRETRAIN, pretrain, tmp_path / "log of nothing")
    assert code == 0, text
    assert "is finished: 2 steps" in text


def assert_all_is_in_mlflow(storage: Path, job: str, data: Path) -> Run:
    """Everything two runs are compared by."""
    client, run = mlflow_run(storage, job)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe"] == "tiny"
    assert str(data) in run.data.params["data"]
    wanted = {"loss/total", "loss/dice", "loss/ce_0", "lr/main", "lr/backbone", "gradient_norm", "clips_per_second"}
    assert wanted | {"data_wait", "epoch", "workers"} <= set(run.data.metrics)
    assert any(name.startswith("system/") for name in run.data.metrics)
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss/total")] == [1, 2]
    assert run.data.metrics["workers"] == 2
    assert run.inputs is not None
    (dataset,) = [one for one in run.inputs.dataset_inputs if one.tags[0].value == "training"]
    manifest = json.loads((data / "manifest.json").read_text())
    assert manifest["source_fingerprint"].startswith(dataset.dataset.digest)
    found = artifacts(client, run)
    assert {"config.json", "first_batch.png", f"data/{dataset.dataset.name}/manifest.json"} <= found
    assert {"checkpoint.best", "checkpoint.last"} <= set(run.data.tags)
    last = run.data.tags["checkpoint.last"]
    assert {f"{last}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= found
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    source = Path(str(version.source).removeprefix("file://"))
    assert load(source).model.config.name == "tiny"
    return run


def assert_scores_are_there(storage: Path, run: Run) -> None:
    client, _ = mlflow_run(storage, PRETRAIN)
    found, figures = artifacts(client, run), []
    for name in ("refcoco-val", "refcoco_plus-val"):
        figures.append(run.data.metrics[f"valid/{name}/overall_iou"])
        assert run.data.metrics[f"valid/{name}/videos_lost"] == 0
        assert any(path.startswith(f"valid/{name}/step_") and path.endswith(".png") for path in found)
    assert run.data.metrics["valid/mean"] == pytest.approx(sum(figures) / 2)
    assert all(0 <= one <= 1 for one in figures)
    assert 0 <= run.data.metrics["ema_valid/mean"] <= 1
    last = run_of(PRETRAIN, storage, "tiny-tiny") / "step_00000002"
    learned, averaged = load(last).model, load(last / AVERAGED).model
    assert any((one != other).any() for one, other in zip(learned.parameters(), averaged.parameters(), strict=True))
    assert (run_of(PRETRAIN, storage, "tiny-tiny") / "best" / "model.safetensors").is_file()


def assert_it_is_described(run: Run, data: Path) -> None:
    """What the run is, how good it became, and pictures of it, on its page in MLflow."""
    text = run.data.tags["mlflow.note.content"]
    assert "| model | tiny, recipe tiny, from random weights |" in text
    assert f"| learned from | refcoco train ({data}): " in text
    assert re.search(r"\| best \| 0\.\d{4} after step 2, on refcoco-val \(2 videos, \w{8}\), refcoco_plus-val ", text)
    pictures = re.findall(r"!\[(.*?)\]\(get-artifact\?path=(.*?)&run_uuid=(.*?)\)", text)
    assert {run_id for _, _, run_id in pictures} == {run.info.run_id}
    assert "first_batch.png" in {path for _, path, _ in pictures}
    assert any("worst" in path for _, path, _ in pictures)


def test_a_relative_storage_is_refused_as_it_would_vanish_with_the_job(head: Head, data_kit: Path) -> None:
    words = ["python", "jobs/pretrain_refcoco.py", "--data", str(data_kit), "--storage", "runs"]
    code, text = head.submit(*words)
    assert code == 1, text
    assert "error: --storage 'runs' is a relative path, but a submitted job runs in a temporary copy" in text


def test_a_training_that_is_stopped_says_from_where_it_goes_on(head: Head, tmp_path: Path) -> None:
    data = made_up(tmp_path / "made-up")
    flags = flags_of(data.images, tmp_path, "run", "--epochs", "40", "--max-steps", "400")
    run = run_of(PRETRAIN, tmp_path, "run")

    def said_rightly(log: str, before: str) -> bool:
        """Whether the last line says where it goes on, and nothing after `before` is a traceback, of Python or of C++.

        Before it is stopped, Ray itself may log one where a busy machine made it wait.
        """
        assert not re.search(r"Traceback|\*\*\* |Stack|Fatal", log[len(before) :]), log
        newest = f"step_{max(checkpoints(run)):08d}"
        return log.splitlines()[-1] == (
            f"error: Training ended early: it was interrupted. The last checkpoint is {newest} in {run}; the same "
            f"command goes on from it."
        )

    number = head.begin("python", f"jobs/{PRETRAIN}.py", *flags)
    end = time.monotonic() + PATIENCE
    while 4 not in checkpoints(run):
        assert time.monotonic() < end, head.ray_job("logs", number)
        time.sleep(0.05)
    running = head.ray_job("logs", number)
    head.ray_job("stop", number)
    log = head.ray_job("logs", number)
    assert said_rightly(log, running), log

    before = max(checkpoints(run))
    with Job(PRETRAIN, flags, tmp_path / "log") as job:
        job.wait_until(lambda: max(checkpoints(run)) > before)
        running = job.text
        job.process.send_signal(signal.SIGINT)
        assert job.end() == Exit.INTERRUPTED
        assert said_rightly(job.text, running), job.text
