"""Configs as files: they are read back as they were, and results of other settings are refused."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.config_io import CONFIG, from_plain, read_config, require_same_settings, to_plain, write_config
from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.safety.secrets import VARIABLE, with_credentials


@dataclass(frozen=True)
class Sizes:
    """A dataclass in another one."""

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sides:
            raise ValueError("give at least one side")


@dataclass(frozen=True)
class Config:
    """A small one, with a path and a dataclass in it."""

    folder: Path
    limit: float = 1.0
    sizes: Sizes | None = None


@dataclass(frozen=True)
class Named:
    """A config that names a folder."""

    raw: str


def test_a_config_survives_its_file() -> None:
    for config in (Config(Path("/a")), Config(Path("b"), float("inf"), Sizes((1, 2)))):
        plain = json.loads(json.dumps(to_plain(config)))
        assert plain == to_plain(config)
        assert from_plain(Config, plain) == config
    assert to_plain(Config(Path("/a"), 2, Sizes((3,)))) == {"folder": "/a", "limit": 2, "sizes": {"sides": [3]}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folder": "a", "limits": 1}, "Config has no field limits; it has folder, limit, sizes"),
        ({}, "missing 1 required positional argument: 'folder'"),
        ({"folder": "a", "sizes": {"sides": []}}, "give at least one side"),
    ],
)
def test_values_that_do_not_fit_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        from_plain(Config, values)


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a complex, cannot be written to config\.json"):
        to_plain(Config(Path("a"), 1j))  # pyright: ignore[reportArgumentType]


def test_results_of_something_else_are_not_mixed_with_ours(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    require_same_settings(out, {"checkpoint_sha256": "a"}, "made_by")
    out.write(CONFIG, b'{"made_by": {"checkpoint_sha256": "a", "fingerprint": "1"}}')
    require_same_settings(out, {"checkpoint_sha256": "a", "fingerprint": "1"}, "made_by")
    with pytest.raises(JobError, match="checkpoint_sha256 was 'a' and is now 'b'"):
        require_same_settings(out, {"checkpoint_sha256": "b", "fingerprint": "2"}, "made_by")
    with pytest.raises(JobError, match="window was None and is now 5"):
        require_same_settings(out, {"checkpoint_sha256": "a", "window": 5}, "made_by")
    with pytest.raises(JobError, match="checkpoint_sha256 was 'a' and is now None"):
        require_same_settings(out, {}, "made_by")
    for other in (b'{"dataset": "own"}', b"[]", b"{"):
        out.write(CONFIG, other)
        with pytest.raises(JobError, match="was not written by this job"):
            require_same_settings(out, {"checkpoint_sha256": "a"}, "made_by")


def test_settings_may_be_some_of_the_fields_of_a_config(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    out.write(CONFIG, b'{"dataset": "own", "quality": 95, "show": 3}')
    require_same_settings(out, {"dataset": "own", "quality": 95})
    with pytest.raises(JobError, match="holds results of other settings: quality was 95 and is now 50"):
        require_same_settings(out, {"dataset": "own", "quality": 50})
    out.write(CONFIG, b"[]")
    with pytest.raises(JobError, match="was not written by this job"):
        require_same_settings(out, {"dataset": "own"})


def test_credentials_are_not_written_and_do_not_count_as_settings(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    write_config(out, Named("s3://KEY:CANARY@bucket/x"))
    assert b"CANARY" not in out.read(CONFIG)
    require_same_settings(out, {"raw": "s3://KEY:OTHER@bucket/x"})
    out.write(CONFIG, b'{"raw": "s3://KEY:CANARY@bucket/x"}')  # by an earlier version
    require_same_settings(out, {"raw": "s3://REDACTED@bucket/x"})
    with pytest.raises(JobError, match="was 's3://REDACTED@bucket/x' and is now 's3://REDACTED@bucket/y'"):
        require_same_settings(out, {"raw": "s3://KEY:CANARY@bucket/y"})


def test_credentials_in_a_file_of_settings_are_taken_out_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    (tmp_path / CONFIG).write_text('{"raw": "s3://KEY:SECRET@bucket/x"}')
    assert read_config(Named, str(tmp_path / CONFIG)) == Named("s3://REDACTED@bucket/x")
    assert with_credentials("s3://REDACTED@bucket/x") == "s3://KEY:SECRET@bucket/x"
