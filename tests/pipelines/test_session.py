"""The local Ray of a job, on a machine that is too busy to start it in time."""

import subprocess
import sys

import pytest

from pack import ROOT
from patience import PATIENCE

pytestmark = pytest.mark.slow

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


def test_a_ray_that_does_not_start_in_time_is_started_again() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BUSY], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "did not start within 30 seconds, attempt 1 of 3" in ran.stderr
    assert "cores 2" in ran.stdout
    assert "raylets 1\n" in ran.stdout, "nothing of the first attempt is left"
