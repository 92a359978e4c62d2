"""What every job does alike: its command line, Ray, where results go. The only reader of the environment."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import tyro

from pipelines.config_io import ConfigT, read_config
from pipelines.errors import JobError, LayoutError


class Exit(IntEnum):
    """How a job ends, for whoever called it."""

    CLEAN = 0
    FAILED = 1
    QUARANTINE = 3  # finished, but some items could not be used


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
