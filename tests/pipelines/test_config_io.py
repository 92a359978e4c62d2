"""Configs as files: results of other settings are refused."""

from pathlib import Path

import pytest

from pipelines.config_io import CONFIG, require_same_settings
from pipelines.errors import JobError
from pipelines.files import Folder


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
