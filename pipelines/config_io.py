"""Configs as JSON: written beside results, read back, and compared before results of other settings are added to."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_type_hints

from pipelines.errors import JobError
from pipelines.files import Folder

ConfigT = TypeVar("ConfigT")


CONFIG = "config.json"


def read_config(config_type: type[ConfigT], path: str) -> ConfigT:
    """The config that `write_config` wrote.

    Raises:
        JobError: there is no such file, or it was written for another job.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return from_plain(config_type, values)
    except (OSError, json.JSONDecodeError, TypeError, ValueError) as error:
        raise JobError(
            f"--config {path!r} is no config of this job: {error}. Give the config.json that a run of it left."
        ) from error


def write_config(folder: Folder, config: Any) -> None:
    """The config as config.json beside the results."""
    folder.write(CONFIG, (json.dumps(to_plain(config), indent=2, ensure_ascii=False) + "\n").encode())


def to_plain(config: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON holds it: tuples become lists, paths strings."""
    return json.loads(json.dumps(asdict(config), default=_plain))


def from_plain(config_type: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """The dataclass, with the dataclasses in it, that `to_plain` was given.

    Raises:
        ValueError: a field is unknown.
    """
    known = {field.name for field in fields(config_type)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{config_type.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    hints = get_type_hints(config_type)
    return config_type(**{name: _thawed(hints[name], value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{value!r}, a {type(value).__name__}, has no place in a config.json")


def _thawed(hint: Any, value: Any) -> Any:
    """A JSON value as the field's type holds it: lists as tuples, objects as dataclasses."""
    if isinstance(value, dict):
        options = [hint, *getattr(hint, "__args__", ())]
        found = next((option for option in options if is_dataclass(option)), None)
        return from_plain(found, value) if isinstance(found, type) else value
    if isinstance(value, list):
        return tuple(_thawed(Any, item) for item in value)
    if isinstance(value, str) and hint is Path:
        return Path(value)
    return value


def claim(out: Folder, made_by: Mapping[str, Any]) -> None:
    """Makes sure that what is in the folder was made by the same.

    Raises:
        JobError: it was not; the message names the difference.
    """
    if not out.has(CONFIG):
        return
    try:
        there = json.loads(out.read(CONFIG))["made_by"]
        names = dict.fromkeys([*there, *made_by])
        differences = [
            f"{name} was {there.get(name)!r} and is now {made_by.get(name)!r}"
            for name in names
            if there.get(name) != made_by.get(name) and name != "fingerprint"
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            f"{out.path(CONFIG)} was written by something else ({error!r}). Choose another --out."
        ) from error
    if differences:
        raise JobError(
            f"{out.path()} holds predictions made otherwise: {'; '.join(differences)}. Choose another --out, or give "
            f"the same."
        )
