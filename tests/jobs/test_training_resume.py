"""Whatever is killed, a training goes on from its last checkpoint, and comes to what an undisturbed one comes to.

Of a multi-object model, whose clips are asked as many sentences as are drawn for each; other files train single-object
ones.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pack import ROOT
from pipelines.files import Folder
from pipelines.training.best import read_best
from pipelines.training.checkpoints import step_name
from pipelines.training.validation import read_scores
from s3_server import S3Server
from sgmg.checkpoints import TRAINING
from training_runs import (
    LAST,
    PRETRAIN,
    Job,
    JobServer,
    MadeUp,
    ServedJob,
    checkpoints,
    farthest,
    flags_of,
    made_up,
    moments,
    run_job,
    run_of,
    run_served,
    samples,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("training")]

LANES = 4
CUT_SHORT = 4
"""The step after whose checkpoint the runs are disturbed."""


def run_flags(data: MadeUp, storage: Path | str, *more: str) -> list[str]:
    return flags_of(data.images, storage, "run", "--multi-object", "--sentences-per-clip", "3", *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return made_up(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def undisturbed(data: MadeUp, job_server: JobServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others are held against."""
    storage = tmp_path_factory.mktemp("undisturbed")
    code, log = run_served(job_server, PRETRAIN, run_flags(data, storage), storage / "log")
    assert code == 0, log
    run = run_of(PRETRAIN, storage, "run")
    assert checkpoints(run) == [4, 8, 12, LAST]
    assert set(samples(run)) == {(step, lane) for step in range(LAST) for lane in range(LANES)}
    return run


def assert_same_end(run: Path, undisturbed: Path, tolerance: float = 0, first: int = 0) -> None:
    """The same samples from a step on, and the same weights and state of AdamW in the end."""
    assert samples(run, first) == samples(undisturbed, first)
    assert farthest(weights(run), weights(undisturbed)) <= tolerance
    pairs = zip(moments(run), moments(undisturbed), strict=True)
    assert max(float((one - other).abs().max()) for one, other in pairs) <= tolerance


def test_killed_workers_are_started_again_from_the_last_checkpoint_that_is_whole(
    data: MadeUp, undisturbed: Path, job_server: JobServer, tmp_path: Path
) -> None:
    run = run_of(PRETRAIN, tmp_path, "run")
    with ServedJob(job_server, PRETRAIN, run_flags(data, tmp_path), tmp_path / "log") as job:
        job.wait_until(lambda: CUT_SHORT in checkpoints(run))
        first, _ = job.workers()
        first.kill()
        job.wait_until(lambda: len(re.findall("of 2 goes on after step", job.text)) == 2)
        workers = job.workers()
        job.wait_until(lambda: any(run.glob(".step_*.unfinished/model.safetensors")), pause=0.001)
        for worker in workers:  # in the middle of the next checkpoint
            worker.kill()
        (half,) = run.glob(".step_*.unfinished")
        assert not (run / half.name.removeprefix(".").removesuffix(".unfinished")).exists()
        whole = max(checkpoints(run))
        weights(run, whole)
        assert job.end() == 0
        assert f"goes on after step {whole} " in job.text
    assert_same_end(run, undisturbed)
    assert not any(run.glob(".step_*"))


def test_a_killed_driver_goes_on_with_the_same_command_or_with_fewer_workers(
    data: MadeUp, undisturbed: Path, job_server: JobServer, tmp_path: Path
) -> None:
    storage, fewer = tmp_path / "storage", tmp_path / "fewer"
    run, log = run_of(PRETRAIN, storage, "run"), tmp_path / "log"
    with Job(PRETRAIN, run_flags(data, storage), log) as job:
        job.wait_until(lambda: CUT_SHORT in checkpoints(run))
        job.kill_driver()
    stopped = max(checkpoints(run))
    assert stopped < LAST
    (run / ".step_00000099.unfinished").mkdir()  # what a kill in the middle of a checkpoint leaves
    shutil.copytree(storage, fewer)

    code, text = run_served(job_server, PRETRAIN, run_flags(data, storage), log)
    assert code == 0, text
    assert f"goes on after step {stopped} " in text
    assert_same_end(run, undisturbed)
    assert not any(run.glob(".step_*"))

    # Again from the same place, with one worker, and a list of checkpoints that a kill has left half written.
    snapshot = run_of(PRETRAIN, fewer, "run") / "checkpoint_manager_snapshot.json"
    snapshot.write_text(snapshot.read_text()[:100] if snapshot.exists() else "{")
    flags = run_flags(data, fewer, "--workers", "1")
    code, text = run_served(job_server, PRETRAIN, flags, tmp_path / "log of fewer")
    assert code == 0, text
    assert "checkpoint_manager_snapshot.json is damaged" in text
    assert "rank 0 of 1 goes on after step" in text
    assert_same_end(run_of(PRETRAIN, fewer, "run"), undisturbed, tolerance=1e-4, first=stopped)

    the_same_mlflow_run_went_on(storage, stopped)
    a_finished_run_says_so(data, storage)
    another_setting_is_refused(data, storage, job_server)


def test_in_an_object_store_kills_cost_nothing_either_and_the_best_arrives_however_slowly(
    data: MadeUp, undisturbed: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    storage, uri = Folder(s3_server.uri("resume")), f"sqlite:///{tmp_path}/mlflow.db"
    run = storage.folder("pretrain/run")
    flags = run_flags(data, storage.uri, "--valid", str(data.images))
    variables = {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_S3_ENDPOINT_URL": f"http://{s3_server.address}",
        "HOME": str(tmp_path),
    }
    client = MlflowClient(uri)
    client.create_experiment("pretrain", artifact_location="s3://bucket/mlflow")

    def whole() -> list[str]:
        return [name for name in run.names() if run.has(f"{name}/{TRAINING}")]

    with Job(PRETRAIN, flags, tmp_path / "log", None, **variables) as job:
        job.wait_until(lambda: step_name(CUT_SHORT) in whole(), pause=0.2)
        first, _ = job.workers()
        first.kill()
        job.wait_until(lambda: step_name(2 * CUT_SHORT) in whole(), pause=0.2)
        job.kill_driver()
    s3_server.hold("/checkpoints/", 25)  # longer than anybody is waited for at the end
    code, text = run_job(PRETRAIN, flags, tmp_path / "log of the rest", **variables)
    assert code == 0, text
    assert "goes on after step" in text
    run.download(tmp_path / "run")
    assert_same_end(tmp_path / "run", undisturbed)
    found = read_best(run)
    assert found is not None
    scores = read_scores(run, found.scored_on)
    best = max(scores, key=lambda step: scores[step] or 0.0)
    assert (found.step, found.score) == (best, scores[best])
    version = client.get_model_version("sgmg", "1")
    assert str(version.source).endswith(f"checkpoints/{step_name(best)}")
    assert not run.has("lease.json")
    assert not (tmp_path / ".cache" / "sgmg").exists(), "nothing of a run is kept on its machine"


def the_same_mlflow_run_went_on(storage: Path, stopped: int) -> None:
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("pretrain").experiment_id])  # pyright: ignore
    assert run.info.status == "FINISHED"
    steps = {metric.step for metric in client.get_metric_history(run.info.run_id, "loss/total")}
    assert steps == set(range(2, LAST + 1, 2))
    assert stopped in steps
    version = client.get_model_version("sgmg", "1")
    assert version.run_id == run.info.run_id


def a_finished_run_says_so(data: MadeUp, storage: Path) -> None:
    code, text = run_job(PRETRAIN, run_flags(data, storage), storage / "log of nothing")
    assert code == 0, text
    assert f"is finished: {LAST} steps" in text
    assert "Started a local Ray" not in text


def another_setting_is_refused(data: MadeUp, storage: Path, job_server: JobServer) -> None:
    flags = run_flags(data, storage, "--lr", "0.5", "--seed", "3", "--workers", "1")
    code, text = run_served(job_server, PRETRAIN, flags, storage / "log of another")
    assert code == 1, text
    (said,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "was started with other settings: --lr 0.001 → 0.5, --seed 0 → 3. Give the old ones" in said


def test_a_disk_that_is_full_or_takes_nothing_more_ends_the_run_in_one_sentence_and_room_lets_it_go_on(
    data: MadeUp, undisturbed: Path, tmp_path: Path
) -> None:
    run, saved, second = run_of(PRETRAIN, tmp_path, "run"), tmp_path / "saved", tmp_path / "log of the second"
    shadow = tmp_path / "shadow"
    run.mkdir(parents=True)
    shadow.mkdir()
    flags = " ".join(run_flags(data, tmp_path))
    script = tmp_path / "script"
    # The disk is seen by this script alone, and goes with it. It is full first, and then becomes read-only under a run.
    script.write_text(
        f"mount -t tmpfs -o size=110m tmpfs {run} || exit 77\n"
        f'python=$1; job=$2\n$python $job {flags}\necho "ended with $?"\nls -A {run}\n'
        f"mount -o remount,size=1g {run}\n"
        f"mount --bind {run} {shadow}\nmount -o remount,ro,bind {shadow}\n"
        f"(until grep -q 'goes on after step' '{second}'; do sleep 0.1; done; mount --bind {shadow} {run}) &\n"
        f"$python $job {flags} > '{second}' 2>&1\necho \"ended with $?\"\ncat '{second}'\n"
        f"umount --lazy {run}\n$python $job {flags} || exit 1\ncp -r {run} {saved}\n"
    )
    mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    program = ["unshare", "--mount", *mapped, "sh", str(script)]
    with Job(PRETRAIN, [], tmp_path / "log", [*program, sys.executable, str(ROOT / "jobs" / f"{PRETRAIN}.py")]) as job:
        code, text = job.end(), job.text
        if code == 77:
            pytest.skip("no disk of limited size can be mounted here")
        assert code == 0
    full, read_only, last = text.split("ended with 1\n")
    for part in (full, last):
        (said,) = [line for line in part.splitlines() if line.startswith("error: ")]
        # Whichever file comes first: one of the checkpoint, or the list of samples beside it.
        assert re.search(
            "Training ended early: (The checkpoint .* could not be written|.*run takes no more files)", said
        )
        assert "The last checkpoint is step_00000008 in" in said
    assert "step_00000008\n" in read_only
    assert "goes on after step 8 " in last.partition("error: ")[2]
    assert_same_end(saved, undisturbed)
    assert json.loads((saved / "finished.json").read_text()) == {"steps": LAST}
