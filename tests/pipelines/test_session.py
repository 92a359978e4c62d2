"""The local Ray of a job, on a machine that is too busy to start it in time; and what a cluster does for a job."""

import os
import subprocess
import sys

import pytest
import ray

from pack import ROOT
from patience import PATIENCE
from pipelines.session import on_cluster

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
