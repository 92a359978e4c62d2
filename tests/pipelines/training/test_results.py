"""The best checkpoint goes from the run's storage to MLflow, whoever wrote it and however slowly it travels."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from patience import PATIENCE
from pipelines.files import Folder
from pipelines.tracking.mlflow_run import RunHandle, open_run
from pipelines.training import results
from pipelines.training.best import Best, fetch_best, read_best, write_best
from pipelines.training.checkpoints import Snapshot, step_name
from pipelines.training.results import BestUploads, store_results
from prepared_data import tiny_model
from s3_server import S3Server
from sgmg.checkpoints import load

# MLflow's tables use a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunHandle:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_run("pretrain", "one", str(tmp_path / "storage"), {})


@pytest.fixture(params=["disk", pytest.param("object store", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "disk":
        yield Folder(str(tmp_path / "run"))
        return
    server: S3Server = request.getfixturevalue("s3_server")
    yield Folder(server.uri(f"results/{tmp_path.name}"))


def a_snapshot(step: int) -> Snapshot:
    return Snapshot.of(tiny_model(step), {"step": step}, None, {"step": step})


def held(tracking: RunHandle) -> dict[str, str]:
    tags = tracking.client().get_run(tracking.run_id).data.tags
    return {name: value for name, value in tags.items() if name.startswith("checkpoint.")}


def test_the_best_is_replaced_whole_and_says_its_step(run: Folder, tmp_path: Path) -> None:
    assert read_best(run) is None
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        fetch_best(run, tmp_path / "nothing")
    for step in (4, 12, 12):  # the last a second time, as after a --change
        best = Best(step, 0.5, "these")
        write_best(run, a_snapshot(step), best)
        assert read_best(run) == best
        found = load(fetch_best(run, tmp_path / f"staging {step}"))
        torch.testing.assert_close(dict(found.model.state_dict()), dict(tiny_model(step).state_dict()), atol=0, rtol=0)
    if not run.is_local:
        assert run.names("best") == ["best.json", best.folder]


def test_it_is_sent_while_training_goes_on_and_what_scored_best_is_registered(
    run: Folder, tracking: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_SECONDS", 0.05)
    with BestUploads(run, tracking):
        for step in (4, 8):
            write_best(run, a_snapshot(step), Best(step, 0.5, "these"))
            end = time.monotonic() + PATIENCE
            while held(tracking).get("checkpoint.best") != f"checkpoints/{step_name(step)}":
                assert time.monotonic() < end
                time.sleep(0.05)
    a_snapshot(12).upload(run.filesystem, run.path(step_name(12)))
    assert store_results(run, tracking, "sgmg")
    assert held(tracking)["checkpoint.last"] == f"checkpoints/{step_name(12)}"
    version = tracking.client().get_model_version("sgmg", "1")
    config = tracking.client().download_artifacts(tracking.run_id, f"checkpoints/{step_name(8)}/config.json")
    assert json.loads(Path(config).read_text())["notes"]["step"] == 8
    assert str(version.source).endswith(step_name(8))
    artifacts = tracking.client().list_artifacts(tracking.run_id, f"checkpoints/{step_name(8)}")
    assert {Path(item.path).name for item in artifacts} == {"config.json", "model.safetensors"}


def test_without_scores_the_last_is_the_best_and_a_second_try_changes_nothing(run: Folder, tracking: RunHandle) -> None:
    a_snapshot(12).upload(run.filesystem, run.path(step_name(12)))
    for _ in range(2):
        assert store_results(run, tracking, "sgmg")
    assert held(tracking)["checkpoint.best"] == f"checkpoints/{step_name(12)}"
    assert len(tracking.client().search_model_versions("name = 'sgmg'")) == 1


def test_weights_of_a_step_that_was_learned_a_second_time_are_sent_and_registered_too(
    run: Folder, tracking: RunHandle
) -> None:
    for weights in (8, 9):  # the second after a --change of the learning rate
        changed = Snapshot.of(tiny_model(weights), {"step": 8}, None, {"step": 8})
        write_best(run, changed, Best(8, 0.5, "these"))
        changed.upload(run.filesystem, run.path(step_name(8)))
        assert store_results(run, tracking, "sgmg")
    first, second = (str(tracking.client().get_model_version("sgmg", str(number)).source) for number in (1, 2))
    assert first.endswith(step_name(8))
    assert held(tracking)["checkpoint.best"] == f"checkpoints/{second.rpartition('/')[2]}"
    for weights, source in ((8, first), (9, second)):
        name = source.rpartition("/")[2]
        found = load(Path(tracking.client().download_artifacts(tracking.run_id, f"checkpoints/{name}")))
        torch.testing.assert_close(
            dict(found.model.state_dict()), dict(tiny_model(weights).state_dict()), atol=0, rtol=0
        )


@pytest.mark.slow
def test_a_store_that_is_busy_for_a_moment_costs_no_checkpoint(s3_server: S3Server, tmp_path: Path) -> None:
    run = Folder(s3_server.uri("busy"))
    run.make()
    s3_server.busy(3)
    write_best(run, a_snapshot(4), Best(4, 0.5, "these"))
    s3_server.busy(3)
    assert load(fetch_best(run, tmp_path)).model is not None
