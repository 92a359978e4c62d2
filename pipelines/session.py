"""The process that a job runs in: its Ray, its working directory, its terminal."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray.exceptions import RayTaskError

from pipelines.errors import JobError
from pipelines.files import Folder, is_uri

T = TypeVar("T")
_log = logging.getLogger(__name__)

_STARTS = 3
"""Attempts to start a local Ray."""


def start_ray(num_cpus: int | None = None, *, dashboard: bool = False) -> None:
    """Connects to the cluster of RAY_ADDRESS or of the job submission; else starts a local Ray.

    Args:
        num_cpus: logical cores of a local Ray; by default at least 4, so that data pipeline and training workers fit.
        dashboard: whether a local Ray has its dashboard: eleven processes, which Ray Train wants.

    Raises:
        JobError: a local Ray does not start, as the machine is too busy.
        ConnectionError: there is no cluster at the address.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        # A submitted job's workers have its environment; those of a driver that connects would lack its credentials.
        credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        passed = {"env_vars": credentials} if credentials and not in_submitted_job() else None
        ray.init(address=address, log_to_driver=True, runtime_env=passed)
    else:
        _start_local(num_cpus or max(4, os.cpu_count() or 1), dashboard)


def on_cluster(function: Callable[..., T], *args: Any) -> T:
    """Runs a function as a task of the cluster that this process belongs to or RAY_ADDRESS names; without one, here.

    Raises:
        Exception: what the function raises, without the trace of the worker.
    """
    if not (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        return function(*args)
    start_ray()
    try:
        return ray.get(ray.remote(num_cpus=1)(function).remote(*args))
    except RayTaskError as error:
        raise error.cause from None


def _start_local(num_cpus: int, dashboard: bool) -> None:
    """Starts a local Ray. Ray gives its processes 30 seconds, which is short on a busy machine: tries again then."""
    for attempt in range(1, _STARTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=dashboard, dashboard_host="127.0.0.1")
        except Exception as error:  # Ray has no type for it
            if "timed out during startup" not in str(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            text = "Ray did not start within 30 seconds, attempt %d of %d: this machine is busy"
            _log.warning(text, attempt, _STARTS)
        else:
            return
    raise JobError(
        f"Ray did not start here in {_STARTS} attempts of 30 seconds. See what else runs on this machine, and run the "
        f"same command again."
    )


def in_submitted_job() -> bool:
    """Returns whether this process is a submitted job, whose working directory is a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def durable_folder(path: str, flag: str) -> Folder:
    """Returns a folder for results, as an absolute path or URI.

    Args:
        path: local path, or s3://…, gs://….
        flag: flag that the path came from, for the error message.

    Raises:
        JobError: the path is relative and the process is a submitted job: the folder would be deleted with the job's
            copy of the code.
    """
    if is_uri(path):
        return Folder(path)
    local = Path(path).expanduser()
    if in_submitted_job() and not local.is_absolute():
        raise JobError(
            f"{flag} {path!r} is a relative path, but a submitted job runs in a temporary copy of the code that is "
            f"deleted when it ends. Give an absolute path on storage that every node can read, or s3://…, gs://…."
        )
    return Folder(str(local.resolve()))


def terminal() -> bool:
    """Returns whether stderr is a terminal: progress is then a bar, else log lines."""
    return sys.stderr.isatty()
