"""The process that a job runs in: its Ray, its working directory, its terminal."""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray.exceptions import RayTaskError

from pipelines.errors import JobError
from pipelines.files import Folder, is_uri
from pipelines.runtime.ray_address import check_cluster
from pipelines.runtime.signals import keep_handlers
from pipelines.safety.secrets import VARIABLE

T = TypeVar("T")
_log = logging.getLogger(__name__)

_STARTS = 3
"""Attempts to start a local Ray."""
_BUSY = {
    "timed out during startup": "within 30 seconds",
    "Failed to find a valid port": "with its dashboard",
    "the error message from the dashboard": "with its dashboard within a minute",
    "Failed to read dashboard.err": "with its dashboard within a minute",
}
"""Parts of Ray's errors after which a second attempt may succeed, and how we say them: its processes were too slow, or
another process took the port chosen for its dashboard."""
_DASHBOARD_URL = "RAY_API_SERVER_ADDRESS"
_PASSED_ON = ("AWS_", "GOOGLE_", "AZURE_", "MLFLOW_", "HF_", "HUGGING", "GLOO_", "NCCL_", VARIABLE)
"""Beginnings of the names of environment variables that workers need: how to reach stores, MLflow, the hub, others."""


def start_ray(num_cpus: int | None = None, *, dashboard: bool = False) -> None:
    """Connects to the cluster of RAY_ADDRESS or of the job submission; else starts a local Ray.

    Args:
        num_cpus: logical cores of a local Ray; by default at least 4, so that data pipeline and training workers fit.
        dashboard: whether a local Ray has its dashboard: eleven processes, which Ray Train wants.

    Raises:
        JobError: no cluster answers at the address, or a local Ray does not start, as the machine is too busy.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_cluster(address)
        try:
            with keep_handlers():
                ray.init(address=address, log_to_driver=True, runtime_env=_environment_of_workers())
        except Exception as error:  # Ray has no type for it
            _log.debug("traceback of the error below", exc_info=True)
            raise JobError(
                f"Ray cannot be reached at RAY_ADDRESS={address}: {' '.join(str(error).split())[:500]}. Mend the "
                f"address or the cluster, or take RAY_ADDRESS out of the environment to use this machine alone."
            ) from error
    else:  # its processes inherit the environment
        start_local(num_cpus or max(4, os.cpu_count() or 1), dashboard=dashboard)


def _environment_of_workers() -> dict[str, Any] | None:
    """Returns Ray's runtime environment, in which the workers of a cluster have our variables; None if there are none.

    Ray writes the variables of a runtime environment into its logs, lists and dashboard, and they may be passwords. So
    they are the data of a function that each worker calls when it starts. Ray keeps it in the memory of the head node
    until the job ends, and logs its name alone.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}

    def set_variables() -> None:
        os.environ.update(variables)

    return {"worker_process_setup_hook": set_variables} if variables else None


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


@contextmanager
def dashboard_port() -> Iterator[int]:
    """Chooses a free port for the dashboard, and makes known its URL to the local Ray that is started in the block.

    Ray Train asks a dashboard whether the run's controller is alive, and ends the workers if it is not. Without the URL
    it asks the dashboard of any Ray on this machine, and to that of another Ray the controller is unknown.
    """
    port = _free_port()
    before = os.environ.get(_DASHBOARD_URL)
    os.environ[_DASHBOARD_URL] = f"http://127.0.0.1:{port}"
    try:
        yield port
    finally:
        if before is None:
            del os.environ[_DASHBOARD_URL]
        else:
            os.environ[_DASHBOARD_URL] = before


def start_local(num_cpus: int, *, dashboard: bool = False, **more: Any) -> Any:
    """Starts a local Ray, in several attempts on a busy machine.

    Args:
        num_cpus: logical cores.
        dashboard: whether it has its dashboard.
        more: what else `ray.init` takes.

    Returns:
        What `ray.init` returns.

    Raises:
        JobError: it does not start, as the machine is too busy.
    """

    def start() -> Any:
        with keep_handlers(), dashboard_port() if dashboard else nullcontext() as port:
            return ray.init(
                address="local", num_cpus=num_cpus, include_dashboard=dashboard,
                dashboard_host="127.0.0.1", dashboard_port=port, **more,
            )  # fmt: skip

    return in_attempts(start)


def in_attempts(start: Callable[[], T]) -> T:
    """Calls a function that starts processes of Ray, and calls it again where they were too slow.

    Ray gives its processes 30 seconds, and its dashboard 60, which is short on a busy machine. What a failed attempt
    has started is killed: every process below this one that was not there before.

    Raises:
        JobError: the machine is too busy.
    """
    for attempt in range(1, _STARTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            return start()
        except Exception as error:  # Ray has no type for it
            how = next((how for text, how in _BUSY.items() if text in str(error)), None)
            if how is None:
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            _log.warning("Ray did not start %s, attempt %d of %d: this machine is busy", how, attempt, _STARTS)
    raise JobError(
        f"Ray did not start here in {_STARTS} attempts. See what else runs on this machine, and run the "
        f"same command again."
    )


def _free_port() -> int:
    """Returns a port of this machine that nobody listens on, and that two who ask at once do not both get."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
