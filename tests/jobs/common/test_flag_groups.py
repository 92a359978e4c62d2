"""Sections of --help: every flag of the training jobs is in one, and the config stays as it is."""

from collections import Counter
from dataclasses import fields

import pytest

from jobs.common.cli import parse
from jobs.common.flag_groups import TRAINING, field_helps
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE


def test_every_flag_is_in_one_section_and_has_a_help_text() -> None:
    names = [field.name for field in fields(TrainConfig)]
    grouped = Counter(name for group in TRAINING.values() for name in group)
    assert [name for name in names if grouped[name] != 1] == []
    assert set(field_helps(TrainConfig)) == set(names)


def test_a_command_line_gives_the_same_config_with_and_without_sections() -> None:
    words = ["--data", "a", "b", "--recipe", "scratch", "--seed", "7", "--no-flip", "--short-sides", "160", "200"]
    plain = parse(TrainConfig, words, recipes=FINETUNE)
    assert parse(TrainConfig, words, recipes=FINETUNE, groups=TRAINING) == plain
    assert plain.short_sides == (160, 200)


def test_help_shows_the_sections_in_order(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"], recipes=FINETUNE, groups=TRAINING)
    text = capsys.readouterr().out
    places = [text.index(f"{title} options") for title in TRAINING]
    assert places == sorted(places)
    assert text.index("Data options") < text.index("--data") < text.index("Model options")
    assert "Prepared folders (jobs/prepare.py)" in " ".join(text.replace("│", " ").split())


def test_data_that_are_not_given_and_odd_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--seed", "7"], recipes=FINETUNE, groups=TRAINING)
    assert "--data" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--model 'huge'"):
        parse(TrainConfig, ["--data", "a", "--model", "huge"], recipes=FINETUNE, groups=TRAINING)
