"""Configs as JSON files: written next to results, read back, and compared before more results are added.

They never hold credentials: see `pipelines.safety.secrets`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_type_hints

from pipelines.errors import JobError, shown
from pipelines.files import Folder
from pipelines.safety.secrets import keep_credentials, redacted_values
from sgmg.json_text import parse_json

ConfigT = TypeVar("ConfigT")

CONFIG = "config.json"
"""Name of the file, in the folder of the results."""


def read_config(config_type: type[ConfigT], path: str) -> ConfigT:
    """Reads a config that `write_config` wrote.

    Raises:
        JobError: the file does not exist, or was written for another job.
    """
    try:
        values = parse_json(Path(path).read_text(encoding="utf-8"))
        return from_plain(config_type, _without_credentials(values))
    except (OSError, json.JSONDecodeError, TypeError, ValueError) as error:
        raise JobError(
            f"--config {path!r} is not a config of this job: {error}. Give the config.json that a run of it wrote."
        ) from error


def write_config(folder: Folder, config: Any) -> None:
    """Writes the config as config.json into the folder of the results.

    Raises:
        JobError: the folder cannot be written.
    """
    try:
        folder.write(CONFIG, (json.dumps(to_plain(config), indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise JobError(f"{folder.path()} cannot be written ({error}). Choose another folder.") from error


def to_plain(config: Any) -> dict[str, Any]:
    """Converts a dataclass to JSON values, `redacted`: tuples become lists, paths strings."""
    return redacted_values(json.loads(json.dumps(asdict(config), default=_plain)))


def from_plain(config_type: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Converts JSON values back to the dataclass, and those nested in it: the inverse of `to_plain`.

    Raises:
        ValueError: a field is unknown, or its value is refused by the dataclass.
    """
    known = {field.name for field in fields(config_type)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{config_type.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    hints = get_type_hints(config_type)
    return config_type(**{name: _from_json(hints[name], value) for name, value in values.items()})


def _without_credentials(value: Any) -> Any:
    """Takes credentials out of JSON values and keeps them: earlier versions wrote them down, and people do."""
    if isinstance(value, dict):
        return {name: _without_credentials(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_credentials(inner) for inner in value]
    return keep_credentials([value])[0] if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{value!r}, a {type(value).__name__}, cannot be written to {CONFIG}")


def _from_json(hint: Any, value: Any) -> Any:
    """Converts a JSON value to the field's type: lists become tuples, objects dataclasses."""
    if isinstance(value, dict):
        options = [hint, *getattr(hint, "__args__", ())]
        nested = next((option for option in options if is_dataclass(option)), None)
        return from_plain(nested, value) if isinstance(nested, type) else value
    if isinstance(value, list):
        return tuple(_from_json(Any, item) for item in value)
    if isinstance(value, str) and hint is Path:
        return Path(value)
    return value


def stored_setting(out: Folder, key: str, name: str) -> Any:
    """Returns a setting that the results in a folder were made with; None if there are no results that name it."""
    try:
        return parse_json(out.read_if_there(CONFIG) or b"{}")[key][name]
    except (ValueError, KeyError, TypeError):  # `require_same_settings` says what is wrong with it
        return None


def require_same_settings(out: Folder, settings: Mapping[str, Any], key: str | None = None) -> None:
    """Checks that the results in a folder, if there are any, were made with these settings.

    Args:
        out: folder of the results. Without a config.json it has none.
        settings: values that decide the results, by name. The fingerprint, which sums up the others, is not compared,
            nor are credentials.
        key: field of config.json that holds the stored settings, and nothing else; None: they are fields of its own.

    Raises:
        JobError: a setting differs, or config.json is not one of this job; the message lists the differences.
    """
    written = out.read_if_there(CONFIG)
    if written is None:
        return
    try:
        config = redacted_values(parse_json(written))
        stored = config[key] if key else {name: config.get(name) for name in settings}
        settings = redacted_values(settings)
        names = dict.fromkeys([*stored, *settings])
        differences = [
            f"{shown(name)[1:-1]} was {shown(stored.get(name))} and is now {shown(settings.get(name))}"
            for name in names
            if stored.get(name) != settings.get(name) and name != "fingerprint"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{out.path(CONFIG)} was not written by this job ({error!r}). Choose another --out.") from error
    if differences:
        raise JobError(
            f"{out.path()} holds results of other settings: {'; '.join(differences)}. Choose another --out, or give "
            f"the same settings."
        )
