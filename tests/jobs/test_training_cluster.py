"""Training on several nodes: one that dies, one that never comes, storage that only one of them sees."""

import re
import sys
from pathlib import Path

import pytest

from training_runs import (
    FINETUNE,
    LAST,
    Job,
    JobServer,
    MadeUp,
    checkpoints,
    farthest,
    flags_of,
    made_up,
    moments,
    run_of,
    run_served,
    samples,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nodes")]  # beside the other training tests


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    return made_up(tmp_path_factory.mktemp("made-up"))


def script(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(name))]


def test_a_node_is_taken_away_after_a_notice_and_the_training_comes_to_the_same(
    data: MadeUp, job_server: JobServer, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    flags = flags_of(data.videos, storage, "undisturbed")
    code, text = run_served(job_server, FINETUNE, flags, tmp_path / "log of undisturbed")
    assert code == 0, text
    flags = flags_of(data.videos, storage, "run", "--cpus-per-worker", "1", "--max-failures", "0")
    program = [*script("training_on_dying_node.py"), FINETUNE]
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{storage}/mlflow.db", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}
    with Job(FINETUNE, flags, tmp_path / "log", program, **variables) as job:
        code, text = job.end(), job.text
        assert code == 0
    said = re.search(r"a node will be taken away: a checkpoint is written after step (\d+)", text)
    assert said, text
    assert f"killed a node after {said[1]}" in text
    assert f"of 2 goes on after step {said[1]} " in text
    run, undisturbed = (run_of(FINETUNE, storage, name) for name in ("run", "undisturbed"))
    assert checkpoints(run)[-1] == LAST
    assert samples(run) == samples(undisturbed)
    assert farthest(weights(run), weights(undisturbed)) == 0
    pairs = zip(moments(run), moments(undisturbed), strict=True)
    assert max(float((one - other).abs().max()) for one, other in pairs) == 0


def test_a_cluster_that_cannot_train_is_told_why(data: MadeUp, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    flags = flags_of(data.videos, storage, "run", "--max-failures", "9")
    program = script("training_on_small_cluster.py")
    with Job(FINETUNE, flags, tmp_path / "log", program, MLFLOW_TRACKING_URI=f"sqlite:///{storage}/mlflow.db") as job:
        assert job.end() == 0
        lines = job.text.splitlines()
    told = {key: line for line in lines for key in ("UNSHARED", "TOO FEW", "LOST") if line.startswith(key)}
    assert "/proc/self/cwd/unshared is not shared: 1 of 2 nodes (" in told["UNSHARED"]
    assert "Give a folder on shared storage" in told["UNSHARED"]
    assert "--workers 3 need 4 CPU; after 0.05 minutes 1 CPU are still missing. Start more nodes" in told["TOO FEW"]
    assert any("pipelines.training.cluster: waiting for nodes: 1 CPU missing" in line for line in lines)
    assert "Training ended early: 1 CPU were lost and did not come back within 0.1 minutes." in told["LOST"]
    assert "The last checkpoint is step_000000" in told["LOST"]
    assert any("lost nodes: 1 CPU missing, waiting up to" in line for line in lines)
