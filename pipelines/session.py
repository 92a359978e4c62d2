"""What a job needs to know of the process it runs in: Ray, the working directory, the terminal."""

import os
import sys
from pathlib import Path

import ray

from pipelines.errors import JobError
from pipelines.files import Folder


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
