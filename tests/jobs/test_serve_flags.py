"""The flags of jobs/serve.py, and what it says before it starts anything."""

import socket
from pathlib import Path
from typing import Any

import pytest

from jobs.common import cli
from jobs.impl.serve import application, serve_until_stopped
from jobs.serve import ServeConfig
from pipelines.errors import JobError
from prepared_data import tiny_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"replicas": "3:1"}, "--replicas '3:1' is not MIN:MAX"),
        ({"port": 70000}, "--port must be a number from 0 to 65535"),
        ({"max_mb": 0}, "--max-mb must be above 0"),
        ({"keep": float("inf")}, "--keep must be above 0"),
        ({"max_sentences": 0}, "--max-sentences must be 1 or more"),
        ({"gpus_per_replica": -1}, "--gpus-per-replica must be 0 or more"),
        ({"min_score": 1.5}, "--min-score must be between 0 and 1"),
        ({"overlap": 40}, r"--overlap \(40\) must be smaller than --window \(36\)"),
        ({"threads": 0}, "--threads must be 1 or more"),
    ],
)
def test_a_wrong_flag_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ServeConfig(checkpoint="c", **wrong)


def test_the_command_line_is_understood() -> None:
    words = ["--checkpoint", "c", "--replicas", "1:8", "--gpus-per-replica", "0.5", "--live", "--keep", "5"]
    config = cli.parse(ServeConfig, words)
    assert (config.replicas, config.gpus_per_replica, config.live, config.keep) == ("1:8", 0.5, True, 5.0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.com"])
def test_others_are_let_in_by_a_token_only(checkpoint: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGMG_TOKEN", raising=False)
    with pytest.raises(JobError, match="lets other machines in"):
        serve_until_stopped(ServeConfig(checkpoint=str(checkpoint), host=host))
    with pytest.raises(JobError, match="Set SGMG_TOKEN in the environment of the nodes"):
        application({"checkpoint": str(checkpoint)})


def test_a_port_that_is_taken_is_said(checkpoint: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(JobError, match=f"127.0.0.1:{port} cannot be listened at"):
            serve_until_stopped(ServeConfig(checkpoint=str(checkpoint), port=port))


def test_a_checkpoint_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises((JobError, OSError), match="nothing-here"):
        serve_until_stopped(ServeConfig(checkpoint=str(tmp_path / "nothing-here")))
