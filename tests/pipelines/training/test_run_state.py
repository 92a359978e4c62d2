"""Where the run of a name stands, and with what it may go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from begun_run import TINY, begun_run
from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.stream import TrainData, TrainPart
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.training.checkpoints import step_name
from pipelines.training.preflight import check_same_data, record_data
from pipelines.training.run_state import DATA, is_finished, is_trained, mark_finished, steps_of, tokenizer_of
from prepared_data import SENTENCES, a_record, prepared_folder, tiny_checkpoint
from sgmg.tokenizer import Tokenizer


def prepared(path: Path, videos: str) -> TrainData:
    """Videos of those names, prepared again if they were there."""
    shutil.rmtree(path, ignore_errors=True)
    folder = Folder(str(prepared_folder(path, [a_record(name) for name in videos])))
    return TrainData((TrainPart(folder, read_manifest(folder), ClipRecipe.video(5)),), seed=0, global_batch=1)


def test_a_run_under_way_wants_the_rows_it_was_started_with(tmp_path: Path) -> None:
    run = begun_run(tmp_path / "run")
    record_data(run, prepared(tmp_path / "data", "abcd"))
    check_same_data(run, prepared(tmp_path / "data", "abcd"))
    for other in ("abcde", "bcda"):
        with pytest.raises(JobError, match=r"data was prepared again since the run in .* Give another --name"):
            check_same_data(run, prepared(tmp_path / "data", other))
    shutil.rmtree(tmp_path / "run" / step_name(4))
    check_same_data(run, prepared(tmp_path / "data", "abcde"))


@pytest.mark.parametrize("recorded", [None, {"data": "rows"}, {"plan_version": 3}])
def test_a_run_under_way_wants_the_order_of_samples_it_was_started_with(
    tmp_path: Path, recorded: dict[str, Any] | None
) -> None:
    run, data = begun_run(tmp_path / "run"), prepared(tmp_path / "data", "abcd")
    if recorded is not None:  # else it was started before rows were recorded
        run.write(DATA, json.dumps(recorded).encode())
    version = (recorded or {}).get("plan_version", 1)
    with pytest.raises(
        JobError, match=rf"orders the samples .* another way \(order {version}, here 2\).* --init .*/run"
    ):
        check_same_data(run, data)
    record_data(run, data)
    check_same_data(run, data)


def test_a_run_has_the_steps_of_its_epochs_or_fewer() -> None:
    assert steps_of(replace(TINY, epochs=3), per_epoch=7) == 21
    assert steps_of(replace(TINY, epochs=3, max_steps=5), per_epoch=7) == 5
    assert steps_of(replace(TINY, epochs=3, max_steps=50), per_epoch=7) == 21


def test_a_run_is_finished_when_its_results_are_kept_not_when_it_is_trained(tmp_path: Path) -> None:
    run = begun_run(tmp_path, step=20)
    assert is_trained(run, 20)
    assert not is_trained(run, 21)
    assert not is_finished(run, 20)
    mark_finished(run, 20)
    assert is_finished(run, 20)
    assert not is_finished(run, 21)


def test_the_tokenizer_is_the_one_of_the_run_else_of_its_start_else_a_new_one(tmp_path: Path) -> None:
    data = prepared_folder(tmp_path / "data", [a_record("one")])
    config = replace(TINY, data=(str(data),))
    words = "a dog barks loudly at the postman"
    run = Folder(str(tmp_path / "run"))

    own, saved = tokenizer_of(config, run, None)
    assert saved
    assert own.to_json() != Tokenizer.train(SENTENCES).to_json()  # it knows the words that mirroring brings in

    later = prepared_folder(tmp_path / "later", [a_record("b", sentences=("a zebra asleep", "the zebra"))])
    more, _ = tokenizer_of(replace(config, tokenizer_data=(str(later),)), run, None)
    assert "zebra" in more.to_json()
    assert "zebra" not in own.to_json()

    init = tiny_checkpoint(tmp_path / "init")
    carried, saved = tokenizer_of(config, run, init)
    assert saved
    assert carried.to_json() == Tokenizer.train(SENTENCES).to_json()

    begun_run(tmp_path / "run", config)
    other = Tokenizer.train([words] * 3)
    other.save(tmp_path / "run" / step_name(4))
    assert tokenizer_of(config, run, None)[0].to_json() == other.to_json()
