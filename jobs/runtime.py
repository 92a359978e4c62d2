"""What every job does alike: its command line, Ray, where results go. The only reader of the environment."""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from enum import IntEnum
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_type_hints

import ray
import tyro

from pipelines.files import Folder
from pipelines.problems import LayoutError

ConfigT = TypeVar("ConfigT")

CONFIG = "config.json"


class Exit(IntEnum):
    """How a job ends, for whoever called it."""

    CLEAN = 0
    FAILED = 1
    QUARANTINE = 3  # finished, but some items could not be used


class JobError(Exception):
    """Something a person can mend: shown as one sentence, without a traceback; the job ends with `Exit.FAILED`."""


def run(
    config_type: type[ConfigT],
    main: Callable[[ConfigT], Exit | None],
    arguments: Sequence[str] | None = None,
    recipes: Mapping[str, ConfigT] | None = None,
) -> None:
    """The body of every job: command line to config, config to `main`, its result to the exit code.

    `--config FILE` takes the values of a saved config.json; what else the command line says wins.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    description = sys.modules[main.__module__].__doc__
    try:
        sys.exit(main(parse(config_type, arguments, description=description, recipes=recipes)) or Exit.CLEAN)
    except (JobError, LayoutError, FileNotFoundError, PermissionError, ValueError) as error:
        if os.environ.get("SGMG_TRACEBACK"):
            logging.getLogger(__name__).exception("the error below came from here")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(Exit.FAILED)


def parse(
    config_type: type[ConfigT],
    arguments: Sequence[str] | None = None,
    description: str | None = None,
    recipes: Mapping[str, ConfigT] | None = None,
) -> ConfigT:
    """The config that a command line asks for; a mistyped flag ends with a suggestion.

    Defaults are those of `--config FILE`, a saved config.json, else of `--recipe NAME`, the first where none is named.

    Raises:
        JobError: `--config` names no file, or one that was written for another job; there is no such recipe.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    default: Any = tyro.MISSING_NONPROP
    saved = _taken(words, "--config", remove=True)
    if saved is not None:
        default = read_config(config_type, saved)
    elif recipes:
        name = _taken(words, "--recipe", remove=False) or next(iter(recipes))
        if name not in recipes:
            raise JobError(f"There is no recipe {name!r}. Choose one of: {', '.join(recipes)}.")
        default = recipes[name]
        # A recipe leaves the data open: they must be named.
        default = replace(default, data=tyro.MISSING)
    return tyro.cli(config_type, args=words, default=default, description=description)


def _taken(words: list[str], flag: str, *, remove: bool) -> str | None:
    """The value of a flag among the words of a command line, if it is there."""
    for place, word in enumerate(words):
        name, joined, value = word.partition("=")
        if name == flag:
            count = 1 if joined else 2
            found = value if joined else " ".join(words[place + 1 : place + 2])
            if remove:
                del words[place : place + count]
            return found
    return None


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


def start_ray(num_cpus: int | None = None) -> None:
    """Joins the cluster that RAY_ADDRESS or the job submission names; else starts a local one.

    Args:
        num_cpus: logical cores of a local Ray; by default at least 4, so that a pipeline fits beside train workers.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=True)
    else:
        ray.init(address="local", num_cpus=num_cpus or max(4, os.cpu_count() or 1), dashboard_host="127.0.0.1")


def in_submitted_job() -> bool:
    """Whether this runs as a submitted job: its working directory is then a copy that vanishes."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def durable_folder(path: str, flag: str) -> Folder:
    """A folder for results, as an absolute path or URI.

    Raises:
        JobError: a relative path in a submitted job, where it would vanish with the job's copy of the code.
    """
    if "://" in path:
        return Folder(path)
    local = Path(path).expanduser()
    if in_submitted_job() and not local.is_absolute():
        raise JobError(
            f"{flag} {path!r} is a relative path, but a submitted job runs in a temporary copy of the code that is "
            f"removed when it ends. Give an absolute path on storage that every node sees, or s3://…, gs://…."
        )
    return Folder(str(local.resolve()))


def terminal() -> bool:
    """Whether somebody watches: progress is then a bar, else plain lines."""
    return sys.stderr.isatty()


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
