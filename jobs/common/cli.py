"""The command line of every job: flags to config, config to `main`, result to exit code. Reads SGMG_TRACEBACK.

A job module (jobs/x.py) imports only what its config needs, and its `main` imports the work (jobs/impl/x.py): torch,
ray and mlflow take seconds to import, and --help and a wrong flag are to be answered at once.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import tyro

from jobs.common.flag_groups import Groups, parse_grouped
from jobs.common.flag_suggestions import check_flags
from jobs.common.stopping import Stop
from pipelines.config_io import ConfigT, read_config
from pipelines.errors import Exit, JobError, LayoutError, root_cause
from pipelines.safety.secrets import check_credentials, configure_logging, keep_credentials, redacted


def run(
    config_type: type[ConfigT],
    main: Callable[[ConfigT], Exit | None],
    arguments: Sequence[str] | None = None,
    recipes: Mapping[str, ConfigT] | None = None,
    groups: Groups | None = None,
) -> None:
    """Parses the command line, calls `main` with the config, and exits with its result.

    Errors that a user can correct, and the end by a signal, are printed as one sentence; SGMG_TRACEBACK=1 also prints
    the traceback.

    Args:
        config_type: the job's config, a dataclass with a field per flag.
        main: the job.
        arguments: of the command line; by default those of this process, which then is the job's own: signals end it,
            and it ends with the job.
        recipes: configs to take defaults from, by the name that --recipe gives; the first is the default.
        groups: sections of --help, each with the fields in it.
    """
    configure_logging("%(asctime)s %(levelname)s %(name)s: %(message)s")
    description = sys.modules[main.__module__].__doc__
    stop = Stop() if arguments is None else None
    try:
        if stop:
            _hide_credentials_of_process()
            stop.call_witness()
        config = parse(config_type, arguments, description=description, recipes=recipes, groups=groups)
        code = main(config) or Exit.CLEAN
    except BaseException as error:
        stopped = stop.code if stop else None
        if not stopped and not isinstance(error, Exception):  # an exit
            raise
        if os.environ.get("SGMG_TRACEBACK"):
            logging.getLogger(__name__).exception("traceback of the error below")
        if stop:
            stop.leave_ray()
        print(_last_words(error, stop.sentence if stop and stopped else ""), file=sys.stderr)
        code = stopped or Exit.FAILED
    if stop:
        stop.leave(code)
    sys.exit(code)


def _last_words(error: BaseException, stopped: str) -> str:
    """Returns what to say of the error that ends a job; `stopped` says which signal did."""
    if isinstance(error, JobError | LayoutError) or (not stopped and isinstance(error, OSError | ValueError)):
        # Ray raises what a task raised as an error of the same kind, whose text begins with tracebacks.
        return f"error: {redacted(root_cause(error))}"
    return stopped or redacted("".join(traceback.format_exception(error)).rstrip())  # a mistake of ours


def _hide_credentials_of_process() -> None:
    """Starts this process again if its command line holds credentials, without them: everybody sees a command line.

    Ray, too, keeps that of each job in its lists and logs.
    """
    hidden = keep_credentials(sys.orig_argv)
    if hidden != sys.orig_argv:
        os.execv(sys.executable, [sys.executable, *hidden[1:]])


def parse(
    config_type: type[ConfigT],
    arguments: Sequence[str] | None = None,
    description: str | None = None,
    recipes: Mapping[str, ConfigT] | None = None,
    groups: Groups | None = None,
) -> ConfigT:
    """Returns the config of a command line. A wrong flag ends the process and suggests the right one.

    Credentials are taken out of its URIs, and kept for `pipelines.safety.secrets.with_credentials`.

    Defaults come from `--config FILE`, a saved config.json, else from `--recipe NAME`, else from the first recipe.
    `groups` needs one of these.

    Raises:
        JobError: the file of `--config` does not exist or was written by another job, the recipe does not exist, or
            credentials are missing, or there are two for one store.
        ValueError: the config refuses a value.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    default: Any = tyro.MISSING_NONPROP
    saved = _value_of(words, "--config", remove=True)
    if saved is not None:
        default = read_config(config_type, saved)
    elif recipes:
        name = _value_of(words, "--recipe", remove=False) or next(iter(recipes))
        if name not in recipes:
            raise JobError(f"There is no recipe {name!r}. Choose one of: {', '.join(recipes)}.")
        # A recipe has no data: --data is required.
        default = replace(recipes[name], data=tyro.MISSING)  # pyright: ignore[reportArgumentType]
    words = keep_credentials(words)  # after those of the saved config, which they replace
    check_flags(config_type, words)
    if groups:
        config = parse_grouped(config_type, groups, words, default, description)
    else:
        config = tyro.cli(config_type, args=words, default=default, description=description)
    for field in fields(config):  # pyright: ignore[reportArgumentType]
        value = getattr(config, field.name)
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                check_credentials(f"--{field.name.replace('_', '-')}", text)
    return config


def _value_of(words: list[str], flag: str, *, remove: bool) -> str | None:
    """Returns the value of a flag of a command line, or None if the flag is not given; `remove` takes both out."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            count = 1 if equals else 2
            value = value if equals else " ".join(words[i + 1 : i + 2])
            if remove:
                del words[i : i + count]
            return value
    return None
