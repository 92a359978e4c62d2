"""Where the run of a name stands, and with what it may go on."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.stream import TrainData, TrainPart
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.training.checkpoints import step_name
from pipelines.training.config import FINETUNE, TrainConfig
from pipelines.training.preflight import check_same_data, check_same_settings, record_data
from pipelines.training.run_state import is_finished, is_trained, mark_finished, steps_of, tokenizer_of
from prepared_data import SENTENCES, a_record, prepared_folder, tiny_checkpoint
from sgmg.checkpoints import MODEL, TRAINING
from sgmg.tokenizer import Tokenizer

TINY = replace(FINETUNE["tiny"], data=("/data",))


def started(folder: Path, config: TrainConfig = TINY, step: int = 4) -> Folder:
    """A run with a config and a checkpoint."""
    run = Folder(str(folder))
    write_config(run.make(), config)
    for name in (CONFIG, MODEL, TRAINING):
        run.write(f"{step_name(step)}/{name}", b"{}")
    return run


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": "1:2", "max_failures": 9, "keep": 5, "storage": "/elsewhere"},
        {"log_samples": True, "threads": 3},
    ],
)
def test_how_a_run_is_run_may_change(tmp_path: Path, changes: dict[str, Any]) -> None:
    check_same_settings(started(tmp_path), replace(TINY, **changes))


def test_what_it_computes_may_not_and_every_difference_is_named(tmp_path: Path) -> None:
    run = started(tmp_path)
    with pytest.raises(JobError) as error:
        check_same_settings(run, replace(TINY, lr=0.5, data=("/data", "/more"), workers="2"))
    assert "was started with other settings: --data ('/data',) → ('/data', '/more'), --lr" in str(error.value)
    assert "Give the old ones to go on, or another --name to start anew" in str(error.value)
    assert "workers" not in str(error.value)


def test_a_run_grows_longer_only_where_its_rates_do_not_depend_on_its_end(tmp_path: Path) -> None:
    lr_milestones = replace(TINY, schedule="multistep")
    check_same_settings(started(tmp_path / "multistep", lr_milestones), replace(lr_milestones, epochs=99))
    with pytest.raises(JobError, match="--epochs"):
        check_same_settings(started(tmp_path / "cycle"), replace(TINY, epochs=99))


def test_a_run_that_never_came_to_a_checkpoint_may_start_anew_with_anything(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    check_same_settings(run, TINY)
    write_config(run, TINY)
    check_same_settings(run, replace(TINY, lr=0.5))


def test_a_config_that_cannot_be_read_is_no_reason_to_start_anew(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.write(CONFIG, b'{"colour of the bicycle": 3}')
    with pytest.raises(JobError, match=r"cannot be read .* has no field colour of the bicycle"):
        check_same_settings(run, TINY)


def test_a_run_under_way_wants_the_rows_it_was_started_with(tmp_path: Path) -> None:
    def data(videos: str) -> TrainData:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        folder = Folder(str(prepared_folder(tmp_path / "data", [a_record(name) for name in videos])))
        return TrainData((TrainPart(folder, read_manifest(folder), ClipRecipe.video(5)),), seed=0, global_batch=1)

    run = started(tmp_path / "run")
    check_same_data(run, data("abcd"))  # of a run from before rows were noted
    record_data(run, data("abcd"))
    check_same_data(run, data("abcd"))
    for other in ("abcde", "bcda"):
        with pytest.raises(JobError, match=r"data was prepared again since the run in .* Give another --name"):
            check_same_data(run, data(other))
    shutil.rmtree(tmp_path / "run" / step_name(4))
    check_same_data(run, data("abcde"))


def test_a_run_has_the_steps_of_its_epochs_or_fewer() -> None:
    assert steps_of(replace(TINY, epochs=3), per_epoch=7) == 21
    assert steps_of(replace(TINY, epochs=3, max_steps=5), per_epoch=7) == 5
    assert steps_of(replace(TINY, epochs=3, max_steps=50), per_epoch=7) == 21


def test_a_run_is_finished_when_its_results_are_kept_not_when_it_is_trained(tmp_path: Path) -> None:
    run = started(tmp_path, step=20)
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

    started(tmp_path / "run", config)
    other = Tokenizer.train([words] * 3)
    other.save(tmp_path / "run" / step_name(4))
    assert tokenizer_of(config, run, None)[0].to_json() == other.to_json()
