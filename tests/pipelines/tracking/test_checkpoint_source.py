"""Checkpoints from files, folders, runs and registered models."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.errors import JobError
from pipelines.tracking.checkpoint_source import CACHE, local_checkpoint, on_any_node
from pipelines.tracking.mlflow_run import RunHandle, open_run
from pipelines.tracking.models import register, store_checkpoint, stored_checkpoints
from sgmg.checkpoints import AVERAGED, load, save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg

# MLflow's tables use a loader that SQLAlchemy 2.1 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with two checkpoints of a small model, those of steps 9 and 10; averaged weights with 10."""
    storage = tmp_path_factory.mktemp("storage")
    torch.manual_seed(0)
    model = SgMg(SgMgConfig.preset("tiny"))
    averaged = {name: torch.full_like(weight, 0.5) for name, weight in model.state_dict().items()}
    for step, beside in ((9, None), (10, averaged)):
        folder = storage / f"pretrain/one/step_{step}"
        save(folder, model, averaged=beside, training={"step": step}, notes={"step": step})
    return storage


@pytest.fixture(scope="module")
def run(made: Path) -> RunHandle:
    """Its best checkpoint is that of step 9; registered as version 1 of `sgmg`, alias `chosen`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = open_run("pretrain", "one", str(made), {})
    store_checkpoint(run.client(), run.run_id, "best", 9, made / "pretrain/one/step_9")
    store_checkpoint(run.client(), run.run_id, "last", 10, made / "pretrain/one/step_10")
    client = run.client()
    version = register(run, stored_checkpoints(client.get_run(run.run_id))["best"], "sgmg")
    client.set_registered_model_alias("sgmg", "chosen", version)
    return run


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def step_of(path: Path) -> int:
    return load(path).notes["step"]


def test_files_and_folders_are_themselves_and_a_run_is_its_newest(made: Path, tmp_path: Path) -> None:
    (tmp_path / "published.pth").write_bytes(b"")
    one = made / "pretrain/one"
    assert local_checkpoint(str(tmp_path / "published.pth"), str(made)) == tmp_path / "published.pth"
    assert local_checkpoint(str(one / "step_9"), str(made)) == one / "step_9"
    assert local_checkpoint((one / "step_9").as_uri(), str(made)) == one / "step_9"
    for folder in (one, made):
        assert local_checkpoint(str(folder), str(made)) == one / "step_10"


def test_the_best_of_a_folder_is_taken_and_what_is_not_obvious_is_asked(made: Path, tmp_path: Path) -> None:
    for name in ("step_3", "other"):
        (tmp_path / name).symlink_to(made / "pretrain/one/step_9")
    with pytest.raises(JobError, match=r"several checkpoints. Give one of them:\n.*other\n.*step_3"):
        local_checkpoint(str(tmp_path), str(made))
    (tmp_path / "best").symlink_to(made / "pretrain/one/step_10")
    assert step_of(local_checkpoint(str(tmp_path), str(made))) == 10


def test_a_run_gives_its_best_or_last_checkpoint_fetched_once(made: Path, run: RunHandle) -> None:
    best = local_checkpoint(f"mlflow:{run.run_id}", str(made))
    assert made / CACHE in best.parents
    assert step_of(best) == 9
    assert step_of(local_checkpoint(f"mlflow:{run.run_id}/last", str(made))) == 10
    assert load(best).model.state_dict().keys() == load(made / "pretrain/one/step_9").model.state_dict().keys()
    first = (best / "config.json").stat().st_ino
    assert local_checkpoint(f"mlflow:{run.run_id}/best", str(made)) == best
    assert (best / "config.json").stat().st_ino == first
    assert not [path for path in (made / CACHE).rglob("*") if path.name.startswith(".")]


def test_a_node_that_shares_no_disk_fetches_for_itself(made: Path, run: RunHandle) -> None:
    one = made / "pretrain/one/step_9"
    assert on_any_node(str(one), "nowhere", one)() == one
    for spec, step in ((f"mlflow:{run.run_id}/last", 10), ("models:/sgmg/1", 9)):
        here = local_checkpoint(spec, str(made))
        sent = pickle.dumps(on_any_node(spec, str(made), here))
        shutil.rmtree(here)  # what was fetched here is not there
        assert step_of(pickle.loads(sent)()) == step


def test_averaged_weights_are_asked_for_by_the_name_of_their_file(made: Path, run: RunHandle) -> None:
    one = made / "pretrain/one"
    for spec in (str(one / "step_10"), (one / "step_10").as_uri(), str(one), f"mlflow:{run.run_id}/last"):
        found = local_checkpoint(f"{spec}/{AVERAGED}", str(made))
        assert all(bool((weight == 0.5).all()) for weight in load(found).model.parameters())
        assert on_any_node(f"{spec}/{AVERAGED}", str(made), found)() == found
    for spec in (str(one / "step_9"), f"mlflow:{run.run_id}", "models:/sgmg/1"):
        with pytest.raises(JobError, match=r"has no averaged weights.*mlflow:<run id>/last/model_ema\.safetensors"):
            local_checkpoint(f"{spec}/{AVERAGED}", str(made))


def test_a_model_is_named_by_version_or_alias(made: Path, run: RunHandle) -> None:
    assert run.run_id
    found = {local_checkpoint(f"models:/sgmg{version}", str(made)) for version in ("/1", "/chosen", "@chosen")}
    assert [step_of(path) for path in found] == [9]


def test_errors_name_what_there_is(made: Path, run: RunHandle, tmp_path: Path) -> None:
    said = {
        "mlflow:nothere": rf"no MLflow run 'nothere'.*Runs with checkpoints: {run.run_id} \(one: best, last\)",
        f"mlflow:{run.run_id}/first": "asks for 'first'; a run keeps best and last",
        "models:/sgmg/7": "no models:/sgmg/7.*sgmg has 1, chosen",
        "models:/sgmg/newest": "sgmg has 1, chosen",
        "models:/other/1": "Registered models: sgmg",
        "models:/sgmg": "models:/<name>/<version or alias>",
        str(tmp_path): r"holds nothing.*config.json and model.safetensors",
        "nowhere/at/all": "does not exist",
    }
    for spec, words in said.items():
        with pytest.raises(JobError, match=words):
            local_checkpoint(spec, str(made))
    with pytest.raises(JobError, match="no MLflow database"):
        local_checkpoint(f"mlflow:{run.run_id}", str(tmp_path))
    empty = open_run("pretrain", "two", str(made), {})
    with pytest.raises(JobError, match="has no best or last checkpoint"):
        local_checkpoint(f"mlflow:{empty.run_id}", str(made))


def test_what_is_fetched_and_no_checkpoint_leaves_nothing(made: Path, run: RunHandle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights")
    run.client().log_artifacts(run.run_id, str(tmp_path), "notes")
    version = register(run, "notes", "notes")
    with pytest.raises(JobError, match=r"is no checkpoint.*holds notes\.txt"):
        local_checkpoint(f"models:/notes/{version}", str(made))
    assert list((made / CACHE / "models/notes").rglob("*")) == []
