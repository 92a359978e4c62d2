"""Settings and code version of a run, as MLflow's parameters and tags."""

import importlib.metadata
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pipelines.config_io import to_plain
from pipelines.safety.secrets import redacted_values


def flat(config: Any) -> dict[str, str]:
    """Converts a nested dataclass or mapping to MLflow parameters, `redacted`: names joined by dots, long values cut.

    >>> flat({"rates": {"backbone": 1e-5}, "sizes": (360, 640)})
    {'rates.backbone': '1e-05', 'sizes': '[360, 640]'}
    """
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    plain = to_plain(config) if is_dataclass(config) else redacted_values(config)
    found: dict[str, str] = {}
    for name, value in plain.items():
        name = re.sub(r"[^\w\-. :/]", "_", str(name))
        if isinstance(value, Mapping) and value:
            found |= {f"{name}.{inner}": text for inner, text in flat(value).items()}
        else:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else str(value)
            found[name] = cut(text, MAX_PARAM_VAL_LENGTH)
    return found


def code_version() -> dict[str, str]:
    """Returns tags of the code that runs: the version of the package, and the git commit if there is one."""
    root = Path(__file__).parents[1]
    tags = {"sgmg.version": importlib.metadata.version("sgmg")}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return tags  # an installed package, or the copy that a submitted job runs in
    return tags | {"mlflow.source.git.commit": commit, "sgmg.uncommitted_changes": str(bool(changed)).lower()}


def cut(text: str, limit: int) -> str:
    """Cuts a text to the length that MLflow takes; marks the end of one that was cut."""
    note = " … (cut)"
    return text if len(text) <= limit else text[: limit - len(note)] + note


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
