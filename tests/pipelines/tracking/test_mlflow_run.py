"""Runs, metrics, checkpoints and models in a real MLflow: on SQLite, and behind a server that dies."""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from patience import PATIENCE
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import MANIFEST, Manifest, RowInfo, Shard
from pipelines.tracking.checkpoint_source import local_checkpoint
from pipelines.tracking.metric_log import MetricLog, drain, spool_folder
from pipelines.tracking.mlflow_run import RunHandle, code_version, flat, open_run, tracking_uri
from pipelines.tracking.models import register, store_checkpoint, stored_checkpoints
from ray_heads import free_ports
from s3_server import S3Server

# MLflow's tables use a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@dataclass(frozen=True)
class Rates:
    backbone: float = 1e-5


@dataclass(frozen=True)
class Config:
    rates: Rates
    epochs: int = 12
    data: tuple[str, ...] = ("a", "b")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: its forty migrations take seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return str(tmp_path)


def opened(storage: str, **changes: object) -> RunHandle:
    return open_run("pretrain", "one", storage, replace(Config(Rates()), **changes))


def history(run: RunHandle, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in run.client().get_metric_history(run.run_id, name)]


def artifacts(run: RunHandle, path: str = "") -> set[str]:
    return {found.path for found in run.client().list_artifacts(run.run_id, path)}


def checkpoint(folder: Path, words: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(words)
    return folder


def test_the_database_lies_in_the_storage_folder_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(JobError, match="set MLFLOW_TRACKING_URI"):
        tracking_uri("s3://bucket/runs")
    with pytest.raises(JobError, match=r"2 nodes cannot share.*set MLFLOW_TRACKING_URI"):
        tracking_uri(str(tmp_path), nodes=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri("s3://bucket/runs", nodes=2) == "http://there:5000"


def test_a_login_is_not_part_of_the_address_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:CAN%2FARY@there:5000/mlflow")
    assert tracking_uri("s3://bucket/runs") == "http://there:5000/mlflow"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me", "CAN/ARY")
    run = RunHandle("http://there:5000/mlflow", "1", "2", False)
    assert run.client().tracking_uri == "http://there:5000/mlflow"
    # MLflow has no variables for the login of a database.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:CANARY@there/mlflow")
    assert tracking_uri(str(tmp_path)) == "postgresql://REDACTED@there/mlflow"


def test_credentials_do_not_come_into_the_store(storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret, other = "s3://KEY:CANARY@bucket/a", "s3://KEY:CANARY2@bucket/a"
    with caplog.at_level(logging.WARNING):
        for data in (secret, other, "s3://KEY:CANARY@bucket/b"):
            run = opened(storage, data=(data,))
            run.log_config(Config(Rates(), data=(data,)))
    found = run.client().get_run(run.run_id).data
    assert found.params["data"] == '["s3://REDACTED@bucket/a"]'
    assert found.tags["changed.data"] == '["s3://REDACTED@bucket/b"]'
    assert len(caplog.records) == 1, "other credentials are no change"
    manifest = Manifest(
        "own",
        "train",
        {"raw": secret},
        dict.fromkeys(("videos", "frames", "objects", "expressions"), 0),
        {},
        0,
        "f" * 32,
        (),
    )
    folder = Folder(str(tmp_path / "data"))
    folder.write(MANIFEST, manifest.to_json().encode())
    run.log_datasets([folder], "training")
    for path in tmp_path.rglob("*"):
        held = path.is_file() and path.name != MANIFEST and b"CANARY" in path.read_bytes()
        assert not held, path
    assert "CANARY" not in caplog.text
    assert [b"CANARY" in path.read_bytes() for path in (tmp_path / "artifacts").rglob(MANIFEST)] == [False]


def test_a_submitted_job_refuses_places_that_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(JobError, match="--storage 'runs' is a relative path"):
        tracking_uri("runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(JobError, match="sqlite:////absolute"):
        tracking_uri("/runs")


def test_a_run_holds_the_config_the_code_and_artifacts_in_the_storage_folder(storage: str) -> None:
    run = opened(storage)
    run.log_config(Config(Rates()))
    run.finish()
    found = run.client().get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "one"
    assert found.data.params == {"rates.backbone": "1e-05", "epochs": "12", "data": '["a", "b"]'}
    assert code_version().items() <= found.data.tags.items()
    assert found.data.tags["sgmg.version"]
    assert [path.read_text() for path in (Path(storage) / "artifacts").rglob("config.json")]


def test_a_value_that_is_too_long_is_cut_and_says_so() -> None:
    value = flat({"a": {"b!": "x" * 10_000}})["a.b_"]
    assert len(value) == 6000
    assert value.endswith("(cut)")


def test_the_same_name_continues_the_same_run_and_says_what_changed(
    storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(storage)
    first.finish("FAILED")
    again = opened(storage, epochs=24)
    assert not first.continued
    assert again == replace(first, continued=True)
    found = again.client().get_run(again.run_id)
    assert found.info.status == "RUNNING"
    assert found.data.params["epochs"] == "12"
    assert found.data.tags["changed.epochs"] == "24"
    assert "epochs 12 -> 24" in caplog.text
    back = opened(storage)
    assert back.client().get_run(back.run_id).data.tags["changed.epochs"] == "12"
    assert open_run("pretrain", "two", storage, {}).run_id != first.run_id


@pytest.mark.slow
def test_a_driver_that_was_killed_finds_its_run_again(storage: str) -> None:
    script = f"""
import os, signal
from pipelines.tracking.mlflow_run import open_run
print(open_run("pretrain", "one", {storage!r}, {{"epochs": 12}}).run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = opened(storage)
    assert run.continued
    assert run.run_id == killed.stdout.strip()


def test_a_run_that_was_deleted_is_started_anew(storage: str) -> None:
    first = opened(storage)
    first.client().delete_run(first.run_id)
    second = opened(storage)
    assert not second.continued
    assert opened(storage).run_id == second.run_id


def test_an_mlflow_that_is_not_there_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(JobError, match=r"cannot be used.*Start it, correct MLFLOW_TRACKING_URI"):
        opened(str(tmp_path))


def test_prepared_data_are_inputs_of_the_run(storage: str, tmp_path: Path) -> None:
    rows = (Shard("a.parquet", 10, ((RowInfo("v", 5, 2),),)),)
    counts = {"videos": 1, "frames": 5, "objects": 1, "expressions": 2}
    manifest = Manifest("refytvos", "train", {}, counts, {"crowd": 3}, 1, "f" * 64, rows)
    folder = Folder(str(tmp_path / "data"))
    folder.write(MANIFEST, manifest.to_json().encode())
    run = opened(storage)
    for _ in range(2):  # a continued run logs them again
        run.log_datasets([folder], "training")
    inputs = run.client().get_run(run.run_id).inputs
    assert inputs is not None
    [used] = inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("refytvos-train", "f" * 36)
    assert '"fingerprint": "' + "f" * 64 in str(used.dataset.profile)
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]
    assert artifacts(run, "data/refytvos-train") == {"data/refytvos-train/manifest.json"}


def test_metrics_arrive_once_each_beside_those_of_the_machine(storage: str, tmp_path: Path) -> None:
    run = opened(storage)
    with MetricLog(run, Folder(str(tmp_path / "spool"))) as log:
        for step in range(300):
            log.log(step, {"train/loss": 1 / (step + 1), "rate": float("nan")})
        assert log.flush(20)
    assert history(run, "train/loss") == [(step, 1 / (step + 1)) for step in range(300)]
    assert np.isnan([value for _, value in history(run, "rate")]).all()
    assert history(run, "system/cpu_utilization_percentage")


def test_what_was_missed_is_logged_at_the_next_start_and_never_twice(storage: str, tmp_path: Path) -> None:
    run, spool = opened(storage), Folder(str(tmp_path / "spool"))
    away = replace(run, uri=f"http://127.0.0.1:{free_ports(1)[0]}")
    log = MetricLog(away, spool, system_seconds=None)
    for step in range(50):
        log.log(step, {"loss": step})
    log.log_picture("first_batch.png", b"png")
    began = time.monotonic()
    assert log.close() == 51
    assert time.monotonic() - began < 20
    shutil.copytree(tmp_path / "spool/metrics", tmp_path / "copy")
    assert drain(run, spool) == 0
    assert artifacts(run) == {"first_batch.png"}
    # A process that is killed after it has sent, and before it can note it, sends again.
    shutil.copytree(tmp_path / "copy", tmp_path / "spool/metrics", dirs_exist_ok=True)
    assert drain(run, spool) == 0
    assert history(run, "loss") == [(step, step) for step in range(50)]
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def test_what_waits_is_kept_beside_the_results(tmp_path: Path) -> None:
    assert spool_folder(str(tmp_path), "pretrain", "one").path() == str(tmp_path / "pretrain/one/mlflow_spool")
    bucket = spool_folder("s3://bucket/runs?region=eu-west-1", "pretrain", "one")
    assert bucket.uri == "s3://bucket/runs/pretrain/one/mlflow_spool?region=eu-west-1"


def test_of_two_pictures_of_one_name_the_second_stays(storage: str, tmp_path: Path) -> None:
    run = opened(storage)
    with MetricLog(run, Folder(str(tmp_path / "spool")), system_seconds=None) as log:
        log.log_picture("valid/epoch_1.png", b"first")
        log.log_picture("valid/epoch_1.png", b"second")
    assert artifacts(run) == {"valid"}
    assert Path(run.client().download_artifacts(run.run_id, "valid/epoch_1.png")).read_bytes() == b"second"


def test_a_run_keeps_its_best_and_last_checkpoint_and_what_is_registered(storage: str, tmp_path: Path) -> None:
    run = opened(storage)

    def report(step: int, *, best: bool) -> None:
        made = checkpoint(tmp_path / str(step), f"step {step}")
        if best:
            store_checkpoint(run.client(), run.run_id, "best", step, made)
        store_checkpoint(run.client(), run.run_id, "last", step, made)

    def steps() -> set[int]:
        return {int(path[-8:]) for path in artifacts(run, "checkpoints")}

    report(1, best=True)
    assert steps() == {1}
    assert artifacts(run, "checkpoints/step_00000001") == {
        f"checkpoints/step_00000001/{name}" for name in ("config.json", "model.safetensors")
    }
    report(2, best=False)
    report(3, best=False)
    assert steps() == {1, 3}
    assert register(run, stored_checkpoints(run.client().get_run(run.run_id))["best"], "sgmg") == "1"
    report(4, best=True)
    assert steps() == {1, 4}  # the first is registered
    held = stored_checkpoints(run.client().get_run(run.run_id))
    assert held == {"best": "checkpoints/step_00000004", "last": "checkpoints/step_00000004"}
    assert [register(run, held["best"], "sgmg") for _ in range(2)] == ["2", "2"]  # a resumed run asks again
    with pytest.raises(JobError, match=r"no artifacts 'checkpoints/x' to register; it has checkpoints/step_00000004"):
        register(run, "checkpoints/x", "sgmg")


def test_pictures_that_a_killed_process_had_not_yet_added_are_removed(storage: str, tmp_path: Path) -> None:
    run, spool = opened(storage), Folder(str(tmp_path / "spool"))
    log = MetricLog(replace(run, uri=f"http://127.0.0.1:{free_ports(1)[0]}"), spool, system_seconds=None)
    log.log_picture("waits.png", b"png")
    log.close()
    spool.write("files/abandoned/half.png", b"pn")
    assert drain(run, spool) == 0
    assert artifacts(run) == {"waits.png"}
    assert spool.names("files") == []


@pytest.mark.slow
def test_what_is_missed_waits_in_an_object_store_and_any_machine_sends_it(
    storage: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/nowhere"))  # nothing waits on this machine
    run, spool = opened(storage), Folder(s3_server.uri("runs/one/mlflow_spool"))
    away = replace(run, uri=f"http://127.0.0.1:{free_ports(1)[0]}")
    log = MetricLog(away, spool, system_seconds=None)
    for step in range(30):
        log.log(step, {"loss": step})
        if step % 10 == 0:
            log.flush(1)
    log.log_picture("valid/one.png", b"png")
    assert log.close() == 31
    assert spool.names("metrics")
    s3_server.busy(2)
    assert drain(run, spool) == 0
    assert history(run, "loss") == [(step, step) for step in range(30)]
    assert artifacts(run, "valid") == {"valid/one.png"}
    assert (spool.names("metrics"), spool.names("files")) == ([], [])


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of its own process group, ready to answer."""
    words = ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "server.log").open("ab") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        for _ in range(240):
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_server_killed_in_mid_run_and_started_again_misses_nothing(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_ports(1)[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with mlflow_server(tmp_path, port):
        run = opened(storage)
        log = MetricLog(run, Folder(str(tmp_path / "spool")), system_seconds=0.5)
        for step in range(100):
            log.log(step, {"loss": 1 / (step + 1)})
            time.sleep(0.03)
    for step in range(100, 200):
        began = time.monotonic()
        log.log(step, {"loss": 1 / (step + 1)})
        assert time.monotonic() - began < 0.5
        time.sleep(0.03)
    log.log_picture("valid/away.png", b"png")
    assert not log.flush(20)
    with mlflow_server(tmp_path, port):
        for step in range(200, 250):
            log.log(step, {"loss": 1 / (step + 1)})
        store_checkpoint(run.client(), run.run_id, "best", 250, checkpoint(tmp_path / "better", "step 250"))
        end = time.monotonic() + PATIENCE
        while not log.flush(10):
            assert time.monotonic() < end
        assert log.close() == 0
        run.finish()
        assert history(run, "loss") == [(step, 1 / (step + 1)) for step in range(250)]
        assert artifacts(run) == {"valid", "checkpoints"}
        assert artifacts(run, "checkpoints") == {"checkpoints/step_00000250"}
        version = register(run, "checkpoints/step_00000250", "sgmg")
        for spec in (f"mlflow:{run.run_id}/best", f"models:/sgmg/{version}"):
            assert (local_checkpoint(spec, storage) / "config.json").read_text() == "step 250"
        assert len(history(run, "system/cpu_utilization_percentage")) > 5
    said = [record.getMessage() for record in caplog.records if "metrics to MLflow" in record.getMessage()]
    assert ["does not answer" in said[0], "is back" in said[1], len(said)] == [True, True, 2]


@pytest.mark.slow
def test_a_server_that_is_gone_or_hangs_at_the_end_holds_the_job_up_for_seconds_only(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(storage)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        for port in (silent.getsockname()[1], free_ports(1)[0]):
            away = replace(run, uri=f"http://127.0.0.1:{port}")
            log = MetricLog(away, Folder(str(tmp_path / f"spool{port}")))
            log.log(1, {"loss": 1.0})
            log.log_picture("a.png", b"png")
            began = time.monotonic()
            assert log.close() >= 2
            assert time.monotonic() - began < 21
            away.finish(seconds=3)
            assert time.monotonic() - began < 25
    assert "stays RUNNING" in caplog.text


def test_a_database_that_takes_nothing_more_is_said_in_one_line(
    storage: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run = opened(storage)
    # A journal beside the database can no longer be made, as on a disk that has become read-only.
    Path(storage).rename(f"{storage} of before")
    with caplog.at_level(logging.WARNING):
        run.finish(seconds=2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"MLflow at .*: run \w+ stays RUNNING, though it ended as FINISHED: [\w ]+", said)
    assert "Traceback" not in capfd.readouterr().err
