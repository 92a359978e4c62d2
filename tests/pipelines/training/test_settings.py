"""With which settings a run goes on, and which change on the way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from begun_run import TINY, begun_run
from pipelines.config_io import CONFIG, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.training.settings import CHANGEABLE_FIELDS, RUNTIME_FIELDS, Change, continued


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"workers": "1:2", "max_failures": 9, "keep": 5, "storage": "/elsewhere"},
        {"log_samples": True, "threads": 3},
        {"activation_checkpointing": True, "valid": ("/other",), "valid_every_steps": 50, "patience": 3},
        {"skip_nonfinite": 10},
    ],
)
def test_how_a_run_is_run_and_scored_may_change(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(TINY, **changes)
    assert continued(begun_run(tmp_path), config) == (config, ())


def test_what_it_learns_may_not_and_every_difference_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        continued(begun_run(tmp_path), replace(TINY, lr=0.5, data=("/data", "/more"), workers="2"))
    assert "was started with other settings: --data /data → /data,/more, --lr 0.0003 → 0.5" in str(error.value)
    assert "Give the old ones to go on, or another --name to start anew" in str(error.value)
    assert "--change lr=0.5 changes what may change from here on" in str(error.value)
    assert "workers" not in str(error.value)


def test_credentials_may_change_while_a_run_waits(tmp_path: Path) -> None:
    run = begun_run(tmp_path, replace(TINY, data=("s3://KEY:CANARY@bucket/a",)))
    assert b"CANARY" not in run.read(CONFIG)
    continued(run, replace(TINY, data=("s3://KEY:OTHER@bucket/a",)))
    with pytest.raises(JobError) as error:
        continued(run, replace(TINY, data=("s3://KEY:CANARY@bucket/b",)))
    assert "--data s3://REDACTED@bucket/a → s3://REDACTED@bucket/b" in str(error.value)


def test_a_run_grows_longer_only_where_its_rates_do_not_depend_on_its_end(tmp_path: Path) -> None:
    config = replace(TINY, schedule="multistep")
    assert continued(begun_run(tmp_path / "multistep", config), replace(config, epochs=99))[0].epochs == 99
    with pytest.raises(JobError, match="--epochs"):
        continued(begun_run(tmp_path / "cycle"), replace(TINY, epochs=99))


def test_settings_are_compared_before_the_first_checkpoint_too(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    assert continued(run, TINY) == (TINY, ())
    write_config(run, TINY)
    with pytest.raises(JobError, match="--lr"):
        continued(run, replace(TINY, lr=0.5))


def test_a_config_that_cannot_be_read_is_no_reason_to_start_anew(tmp_path: Path) -> None:
    run = begun_run(tmp_path)
    run.write(CONFIG, b'{"colour of the bicycle": 3}')
    with pytest.raises(JobError, match=r"cannot be read .* has no field colour of the bicycle"):
        continued(run, TINY)


def test_what_is_learned_changes_in_the_open_and_once(tmp_path: Path) -> None:
    run = begun_run(tmp_path)
    config = replace(TINY, change=("lr=5e-5", "lr-milestones=2,4", "precision=bfloat16"))
    changed, changes = continued(run, config)
    assert (changed.lr, changed.lr_milestones, changed.precision) == (5e-5, (2, 4), "bfloat16")
    assert changes == (
        Change("lr", 3e-4, 5e-5), Change("lr_milestones", (3, 5), (2, 4)), Change("precision", "auto", "bfloat16"),
    )  # fmt: skip
    assert ", ".join(map(str, changes[:2])) == "--lr 0.0003 → 5e-05, --lr-milestones 3,5 → 2,4"
    write_config(run, changed)
    assert continued(run, config) == (changed, ()), "the same command goes on"
    with pytest.raises(JobError, match="--lr 5e-05 →"):
        continued(run, TINY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=3", "'seed=3' would change which samples are seen or what the model is"),
        ("global_batch=8", "would change which samples are seen"),
        ("rate=1", "'rate=1' names no setting. Write it as name=value, such as lr=5e-5"),
        ("lr", "'lr' names no setting"),
        ("lr=fast", "'lr=fast': Expected `float`, got `str`. Write it as name=value"),
        ("precision=float8", "'precision=float8': Invalid enum value 'float8'"),
        ("workers=3", "this may change at any time. Give it as --workers 3"),
    ],
)
def test_a_change_that_cannot_be_is_refused(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(JobError) as error:
        continued(begun_run(tmp_path), replace(TINY, change=(change,)))
    assert said in str(error.value)


def test_a_run_that_has_not_begun_has_nothing_to_change(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"has not begun in .* Give the setting itself, such as --lr"):
        continued(Folder(str(tmp_path)), replace(TINY, change=("lr=1",)))


def test_every_setting_that_may_change_is_one() -> None:
    assert (RUNTIME_FIELDS | CHANGEABLE_FIELDS) - {"storage"} <= set(type(TINY).__slots__)
    assert not RUNTIME_FIELDS & CHANGEABLE_FIELDS
