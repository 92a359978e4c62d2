"""What every job does alike: its command line, saved configs, exit codes, where results go."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.common.cli import parse
from pack import ROOT
from pipelines.config_io import read_config, write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.safety.secrets import VARIABLE, with_credentials
from pipelines.session import durable_folder
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE, PRETRAIN
from s3_server import S3Server


@dataclass(frozen=True)
class Config:
    """A small one."""

    data: tuple[str, ...]
    """Folders."""
    side: int | None = None
    """Pixels."""


def test_a_saved_config_gives_the_same_run_and_the_command_line_overrules_it(tmp_path: Path) -> None:
    config = parse(Config, ["--data", "a", "b", "--side", "3"])
    write_config(Folder(str(tmp_path)), config)
    saved = str(tmp_path / "config.json")
    assert parse(Config, ["--config", saved]) == config == Config(("a", "b"), 3)
    assert parse(Config, [f"--config={saved}", "--side", "4"]) == Config(("a", "b"), 4)


def test_a_training_config_survives_its_file(tmp_path: Path) -> None:
    write_config(Folder(str(tmp_path)), FINETUNE["scratch"])
    assert read_config(TrainConfig, str(tmp_path / "config.json")) == FINETUNE["scratch"]


def test_a_config_of_another_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"data": [], "colour": 1}))
    with pytest.raises(JobError, match=r"is not a config of this job: Config has no field colour"):
        read_config(Config, str(tmp_path / "config.json"))
    with pytest.raises(JobError, match=r"Give the config\.json that a run of it wrote"):
        read_config(Config, str(tmp_path / "nothing.json"))


def test_a_recipe_sets_the_defaults_and_the_first_is_taken_where_none_is_named() -> None:
    named = parse(TrainConfig, ["--recipe", "tiny", "--data", "a", "--seed", "7"], recipes=PRETRAIN)
    assert (named.model, named.seed, named.data) == ("tiny", 7, ("a",))
    assert parse(TrainConfig, ["--data", "a"], recipes=PRETRAIN).epochs == PRETRAIN["pretrain"].epochs
    with pytest.raises(JobError, match=r"no recipe 'smal'\. Choose one of: pretrain, tiny"):
        parse(TrainConfig, ["--recipe", "smal", "--data", "a"], recipes=PRETRAIN)


def test_a_mistyped_flag_suggests_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Config, ["--data", "a", "--sied", "3"])
    assert "--side" in capsys.readouterr().err


def test_credentials_leave_the_flags_and_a_saved_config_wants_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    config = parse(Config, ["--data", "s3://KEY:SECRET@bucket/a", "b"])
    assert config.data == ("s3://REDACTED@bucket/a", "b")
    assert with_credentials("s3://REDACTED@bucket/a") == "s3://KEY:SECRET@bucket/a"
    write_config(Folder(str(tmp_path)), config)
    saved = ["--config", str(tmp_path / "config.json")]
    assert parse(Config, saved) == config, "they are known here"
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(JobError, match=r"--data s3://REDACTED@bucket/a has no credentials.*Give --data again"):
        parse(Config, saved)
    assert parse(Config, [*saved, "--data", "s3://KEY:OTHER@bucket/a", "b"]) == config


def test_a_command_line_with_credentials_is_seen_nowhere(s3_server: S3Server) -> None:
    uri = s3_server.uri("x").replace("s3://bucket", "s3://CANARYKEY:CANARY/SECRET@other")
    flags = ["--predictions", uri, "--format", "mevis", f"--out={uri}.zip"]
    program = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    show = f"import pathlib; print(pathlib.Path('/proc/self/cmdline').read_text()); {program}"
    s3_server.users()
    command = [sys.executable, "-c", show, str(ROOT / "jobs/submit.py"), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.FAILED
    assert s3_server.users() == {"CANARYKEY"}, "the job did use them"
    assert "CANARY" not in ended.stderr
    first, second = ended.stdout.split("submit.py")[1:]
    assert "CANARY" in first, "as it was started"
    assert "s3://REDACTED@other/x?endpoint" in second
    assert "CANARY" not in second


def test_in_a_submitted_job_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert durable_folder("runs", "--storage").uri == str(tmp_path / "runs")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(JobError, match=r"--storage 'runs' is a relative path.*Give an absolute path"):
        durable_folder("runs", "--storage")
    assert durable_folder("/runs", "--storage").uri == "/runs"
    assert durable_folder("s3://bucket/runs", "--storage").uri == "s3://bucket/runs"


def test_what_a_person_can_mend_is_one_sentence_and_exit_code_1() -> None:
    command = [sys.executable, str(ROOT / "jobs/finetune_ytvos.py"), "--data", "/no/such/folder", "--recipe", "tiny"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.FAILED
    assert ended.stderr.splitlines()[-1].startswith("error: /no/such/folder holds no manifest.json")
    assert "Traceback" not in ended.stderr


def test_a_bucket_that_does_not_exist_is_one_sentence(s3_server: S3Server) -> None:
    flags = ["--predictions", s3_server.uri("x").replace("bucket", "other"), "--format", "mevis", "--out", "/tmp/a.zip"]
    command = [sys.executable, str(ROOT / "jobs/submit.py"), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == Exit.FAILED
    assert "other" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
