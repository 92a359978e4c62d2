"""A wrong flag is answered with the one that is meant: by meaning and by spelling, of those that the job has."""

import pytest

from jobs.annotate import AnnotateConfig
from jobs.common.cli import parse
from jobs.evaluate import EvaluateConfig
from jobs.predict import PredictConfig
from jobs.prepare import PrepareConfig
from jobs.publish import PublishConfig
from pipelines.training.config import TrainConfig


@pytest.mark.parametrize(
    ("config", "wrong", "right"),
    [
        (TrainConfig, "--batch-size", "--global-batch"),
        (TrainConfig, "--learning-rate", "--lr"),
        (TrainConfig, "--gpus", "--gpus-per-worker"),
        (TrainConfig, "--pretrained", "--init"),
        (TrainConfig, "--dataset=a", "--data"),
        (TrainConfig, "--epoch", "--epochs"),
        (TrainConfig, "--gradient_checkpointing", "--activation-checkpointing"),
        (PrepareConfig, "--datset", "--dataset"),
        (PrepareConfig, "--output", "--out"),
        (PredictConfig, "--gpus", "--gpus-per-actor"),
        (PredictConfig, "--ckpt", "--checkpoint"),
        (PredictConfig, "--weights", "--checkpoint"),
        (AnnotateConfig, "--model-path", "--checkpoint"),
        (AnnotateConfig, "--prompt", "--text"),
        (EvaluateConfig, "--ground-truth", "--truth"),
        (PublishConfig, "--license", "--licence"),
    ],
)
def test_the_flag_that_is_meant_is_suggested(
    config: type, wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(config, ["--seed", "1", wrong, "3"] if config is TrainConfig else [wrong, "3"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    name = wrong.partition("=")[0].replace("_", "-")
    assert line.startswith(f"error: There is no flag {name}. Did you mean {right}")
    assert line.endswith("--help lists all flags.")


def test_only_flags_of_the_job_are_suggested_and_none_for_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("--batch-size", "--made-bi", "--zzz"):
        with pytest.raises(SystemExit):
            parse(PredictConfig, [wrong, "3"])
        assert capsys.readouterr().err == f"error: There is no flag {wrong}. --help lists all flags.\n"


def test_what_is_right_passes() -> None:
    words = [
        "--data",
        "a",
        "--checkpoint=b",
        "--out",
        "c",
        "--gpus_per_actor",
        "1",
        "--no-allow-failures",
        "--threads",
        "2",
    ]
    config = parse(PredictConfig, words)
    assert (config.checkpoint, config.gpus_per_actor, config.allow_failures, config.threads) == ("b", 1, False, 2)
