"""The local Ray of a job, on a machine that is too busy to start it in time; and what a cluster does for a job."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import ray
from ray.job_submission import JobSubmissionClient

import canary
from pack import ROOT
from patience import PATIENCE
from pipelines.session import on_cluster
from ray_heads import started_ray

BUSY = """
import threading, time
import psutil
from pipelines.session import start_ray

def hold_the_first() -> None:
    while True:
        for process in psutil.Process().children(recursive=True):
            if process.name() == "raylet":
                process.suspend()
                return
        time.sleep(0.005)

threading.Thread(target=hold_the_first, daemon=True).start()
start_ray(2)
import ray
print("cores", int(ray.cluster_resources()["CPU"]))
raylets = [one.status() for one in psutil.Process().children(recursive=True) if one.name() == "raylet"]
print("raylets", len(raylets) - raylets.count(psutil.STATUS_ZOMBIE))
"""

TWO = """
import os, sys
from pipelines.session import start_ray

start_ray(2, dashboard=True)
assert "RAY_API_SERVER_ADDRESS" not in os.environ
import ray
from ray.util.state import get_actor

@ray.remote(num_cpus=0)
class Run:
    def name(self) -> str:
        return ray.get_runtime_context().get_actor_id()

@ray.remote(num_cpus=0)
def ask(name: str) -> bool:
    found = get_actor(name, timeout=60)  # as Ray Train's cleaner does
    return found is not None and found.state == "ALIVE"

run = Run.remote()
name = ray.get(run.name.remote())
print("started", flush=True)
sys.stdin.readline()
print("alive", ray.get(ask.remote(name)), flush=True)
"""


@pytest.mark.slow
def test_a_ray_that_does_not_start_in_time_is_started_again() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BUSY], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "did not start within 30 seconds, attempt 1 of 3" in ran.stderr
    assert "cores 2" in ran.stdout
    assert "raylets 1\n" in ran.stdout, "nothing of the first attempt is left"


@pytest.mark.slow
def test_a_dashboard_that_does_not_start_in_time_is_started_again_and_then_said() -> None:
    program = "from pipelines.session import start_ray; start_ray(2, dashboard=True)"
    environment = os.environ | {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    for attempt in (1, 2, 3):
        assert f"did not start with its dashboard within a minute, attempt {attempt} of 3" in ran.stderr
    assert "JobError: Ray did not start here in 3 attempts. See what else runs on this machine" in ran.stderr


@pytest.mark.slow
def test_ray_train_asks_after_a_run_at_the_ray_of_the_run_though_there_are_two() -> None:
    """Asked of the other one, every run is dead, and Ray Train ends its workers."""
    command = [sys.executable, "-c", TWO]
    started = [subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    with started[0], started[1]:
        try:
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
            answers = [process.communicate("ask\n", timeout=PATIENCE)[0] for process in started]
        finally:
            for process in started:
                process.kill()
    assert answers == ["alive True\n"] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_where_there_is_a_cluster_a_worker_does_it_and_its_error_is_that_of_the_function() -> None:
    assert on_cluster(lambda: os.getpid()) != os.getpid()
    with pytest.raises(FileNotFoundError) as raised:
        on_cluster(os.path.getsize, "/nowhere/at all")
    assert str(raised.value) == "[Errno 2] No such file or directory: '/nowhere/at all'"


def test_without_a_cluster_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert on_cluster(lambda: os.getpid()) == os.getpid()


SEEN = """
import json, os
import ray
from pipelines.safety.secrets import keep_credentials, with_credentials
from pipelines.session import start_ray

(shown,) = keep_credentials(["s3://CANARYKEY:CANARYSECRET@bucket/x"])
start_ray()

@ray.remote(num_cpus=0)
class Actor:
    def seen(self):
        return with_credentials(shown)

names = [name for name in os.environ if os.environ[name].startswith("CANARY")]
seen = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in names}).remote())
print(json.dumps([seen, ray.get(Actor.remote().seen.remote())]))
"""


@pytest.mark.slow
def test_workers_of_a_cluster_have_our_credentials_and_ray_writes_them_nowhere(tmp_path: Path) -> None:
    with started_ray() as head:
        variables = head.variables | canary.VARIABLES | {"RAY_ADDRESS": head.cluster, "PYTHONPATH": str(ROOT)}
        (tmp_path / "seen.py").write_text(SEEN)  # no command line, which Ray would keep
        ran = subprocess.run(
            [sys.executable, str(tmp_path / "seen.py")],
            cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout.splitlines()[-1]) == [canary.VARIABLES, "s3://CANARYKEY:CANARYSECRET@bucket/x"]
        assert not canary.logs_that_hold(Path(head.variables["RAY_TMPDIR"]))
        (job,) = JobSubmissionClient(head.address).list_jobs()
        assert "seen.py" in str(job)
        assert "CANARY" not in str(job)
