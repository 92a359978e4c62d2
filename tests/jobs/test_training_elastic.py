"""A training told MIN:MAX workers takes the nodes that come, and does without those that go."""

import re
import sys
from pathlib import Path

import pytest

from training_runs import FINETUNE, Job, flags_of, made_up, run_of, samples

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nodes")]  # beside the other training tests


def test_it_grows_with_a_node_that_comes_and_shrinks_with_one_that_goes(tmp_path: Path) -> None:
    data, storage = made_up(tmp_path / "made-up"), tmp_path / "storage"
    elastic = ["--workers", "1:2", "--cpus-per-worker", "2", "--cpus-per-decode", "0.5"]
    flags = flags_of(data.videos, storage, "run", *elastic, "--epochs", "2000", "--max-steps", "0")
    program = [sys.executable, str(Path(__file__).with_name("training_on_growing_cluster.py"))]
    with Job(FINETUNE, flags, tmp_path / "log", program, MLFLOW_TRACKING_URI=f"sqlite:///{storage}/mlflow.db") as job:
        assert job.end() == 0
        text = job.text
        job.children()
    assert re.findall(r"TRAINS WITH (\d)", text) == ["1", "2", "1"]
    went_on = re.findall(r"rank 0 of (\d) goes on after step (\d+)", text)
    assert [int(world) for world, _ in went_on][-2:] == [2, 1]
    assert int(went_on[-2][1]) < int(went_on[-1][1])
    # Lanes are dealt anew, but each step has its own samples: `samples` says no where one was written down twice.
    seen = samples(run_of(FINETUNE, storage, "run"))
    assert {step for step, _ in seen} == set(range(max(step for step, _ in seen) + 1))
