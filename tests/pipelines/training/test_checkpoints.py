"""Checkpoints of a run in progress: whole or not there, found again, removed when they are too many."""

import json
import logging
import threading
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from patience import PATIENCE
from pipelines.files import Folder
from pipelines.training.checkpoints import (
    RAY_STATE,
    Snapshot,
    SnapshotWrites,
    fetch_checkpoint,
    latest_checkpoint,
    prune,
    repair_ray_state,
    step_name,
    step_of,
)
from prepared_data import SENTENCES, tiny_model
from sgmg.checkpoints import CONFIG, MODEL, TRAINING, load
from sgmg.model import SgMg
from sgmg.tokenizer import Tokenizer


def a_checkpoint(run: Path, step: int) -> Path:
    """The files of one, not what is in them."""
    folder = run / step_name(step)
    folder.mkdir(parents=True)
    for name in (CONFIG, MODEL, TRAINING):
        (folder / name).write_text(str(step))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    """With checkpoints after 4, 8 and 12 steps, and one after 16 that is cut short."""
    for step in (4, 8, 12, 16):
        a_checkpoint(tmp_path, step)
    (tmp_path / step_name(16) / TRAINING).unlink()
    return Folder(str(tmp_path))


def a_snapshot(model: SgMg) -> Snapshot:
    return Snapshot.of(model, {"step": 3, "moments": [torch.ones(2)]}, Tokenizer.train(SENTENCES), {"run": "one"})


def test_the_newest_checkpoint_is_the_last_whole_one(run: Folder, tmp_path: Path) -> None:
    assert latest_checkpoint(run) == "step_00000012"
    assert step_of("step_00000012") == 12
    assert latest_checkpoint(Folder(str(tmp_path / "nothing"))) is None


def test_a_snapshot_is_of_its_moment_however_training_goes_on(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    moments = torch.ones(2)
    snapshot = Snapshot.of(model, {"step": 3, "state": {0: {"moments": [moments]}}}, None, {})
    with torch.no_grad():
        moments.zero_()
        for parameter in model.parameters():
            parameter.zero_()
    snapshot.write(tmp_path / "checkpoint")
    found = load(tmp_path / "checkpoint")
    torch.testing.assert_close(dict(found.model.state_dict()), before, atol=0, rtol=0)
    assert found.training()["state"][0]["moments"][0].tolist() == [1, 1]


def test_a_snapshot_can_be_put_into_object_storage_and_be_fetched(tmp_path: Path) -> None:
    remote = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())  # to pyarrow, as foreign as s3
    model = tiny_model()
    checkpoint = a_snapshot(model).upload(remote, "run/step_00000003")
    assert checkpoint.path == "run/step_00000003"
    run = Folder((tmp_path / "run").as_uri())
    assert latest_checkpoint(run) == "step_00000003"
    found = load(fetch_checkpoint(run, "step_00000003", tmp_path / "staging"))
    torch.testing.assert_close(dict(found.model.state_dict()), dict(model.state_dict()), atol=0, rtol=0)
    assert found.tokenizer is not None
    assert found.training()["step"] == 3


def test_a_snapshot_that_finds_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"could not be written.*Make room"):
        a_snapshot(tiny_model()).write(tmp_path / "file" / "step_00000003")
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_second_snapshot_waits_until_the_first_is_written() -> None:
    writes, begun = SnapshotWrites(), threading.Event()
    first = writes.next()

    def second() -> None:
        writes.next().set()
        begun.set()

    threading.Thread(target=second, daemon=True).start()
    assert not begun.wait(0.2)
    first.set()
    assert begun.wait(PATIENCE)
    writes.wait()


def test_pruning_keeps_the_newest_and_removes_what_kills_left(run: Folder, tmp_path: Path) -> None:
    (tmp_path / ".step_00000020.unfinished").mkdir()
    (tmp_path / "best").mkdir()
    prune(run, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step_00000008", "step_00000012"]
    prune(run, keep=2)
    assert latest_checkpoint(run) == "step_00000012"


@pytest.mark.parametrize("text", ["", "{", '{"checkpoint_results": [{}]}', "[]"])
def test_a_damaged_list_of_checkpoints_is_removed_and_said(
    run: Folder, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    run.write(RAY_STATE, text.encode())
    with caplog.at_level(logging.WARNING):
        repair_ray_state(run)
    assert not run.has(RAY_STATE)
    assert f"{RAY_STATE} is damaged or out of date" in caplog.text


def test_a_list_of_checkpoints_stays_if_all_of_them_are_there(run: Folder) -> None:
    repair_ray_state(run)  # there is none yet
    listed = {"checkpoint_results": [{"checkpoint_dir_name": step_name(step)} for step in (4, 12)]}
    run.write(RAY_STATE, json.dumps(listed).encode())
    repair_ray_state(run)
    assert run.has(RAY_STATE)
    listed["checkpoint_results"].append({"checkpoint_dir_name": step_name(16)})
    run.write(RAY_STATE, json.dumps(listed).encode())
    repair_ray_state(run)
    assert not run.has(RAY_STATE)
