"""Runs jobs one after another on a local Ray, as submitted jobs if its job server starts, and prints their progress."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.job_submission import JobStatus, JobSubmissionClient

from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.manifest import QUARANTINE
from pipelines.session import start_local

JOBS = Path(__file__).resolve().parents[1]
"""Folder of the commands."""
PROGRESS_LOGGER = "pipelines.training.progress"
"""Logger of the training's progress; a log line contains its name."""
_STOPPING_SECONDS = 20
"""Seconds that a job has that is told to end, before Ray kills it. Ray would give it three, a training needs more."""
_ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


class Submitter:
    """A local Ray with its job server, running while the `with` block does."""

    def __enter__(self) -> "Submitter":
        os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", str(_STOPPING_SECONDS))  # for Ray's processes
        context = start_local(4, dashboard=True, log_to_driver=False)
        self.client = JobSubmissionClient(f"http://{context.dashboard_url}")
        self.address = ray.get_runtime_context().gcs_address
        self.submits = True
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def run(self, job: str, words: str, *, allow_incomplete: bool = False, **paths: str) -> None:
        """Runs one job and waits for it.

        Args:
            job: name of the command, the file in jobs/ without .py.
            words: flags, as in a shell.
            allow_incomplete: whether the job may exit with code 3: finished, but some items could not be used.
            paths: flags that name paths or URIs, which may contain spaces.

        Raises:
            JobError: the job failed; its log is printed.
        """
        named = [word for flag, path in paths.items() for word in (f"--{flag.replace('_', '-')}", path)]
        command = [sys.executable, str(JOBS / f"{job}.py"), *shlex.split(words), *named]
        with step(f"{job} {words.split(' --')[0] if job == 'prepare' else ''}".strip()):
            number = self._submitted(shlex.join(command))
            code, log = self._wait(number) if number else self._run_subprocess(command)
        if code != Exit.CLEAN and not (allow_incomplete and code == Exit.QUARANTINE):
            print(log[-6000:], file=sys.stderr)
            raise JobError(f"{job} failed; its log is above. The command was: {shlex.join(command)}")
        if code == Exit.QUARANTINE:
            print("   incomplete: some items were left out", flush=True)
        if "out" in paths:
            _print_left_out(Folder(paths["out"]))

    def _submitted(self, command: str) -> str | None:
        """Submits a job. Returns its id, or None if Ray's job server does not start.

        It does not start while another Ray runs on the machine, because both use the same port.
        """
        end = time.monotonic() + 45
        while self.submits and time.monotonic() < end:
            try:
                # The address is explicit because Ray would choose the first Ray it finds on this machine.
                return self.client.submit_job(entrypoint=f"RAY_ADDRESS={self.address} {command}")
            except RuntimeError as error:
                if "No available agent" not in str(error):
                    raise
                time.sleep(1)
        if self.submits:
            print("   Ray's job server did not start: jobs run as processes instead", flush=True)
        self.submits = False
        return None

    def _wait(self, number: str) -> tuple[int, str]:
        """Waits for a submitted job and prints its progress. Returns its exit code and log."""
        try:
            return self._followed(number)
        except KeyboardInterrupt:
            self._stop(number)
            raise

    def _stop(self, number: str) -> None:
        """Tells a submitted job to end, and waits some seconds until it has: in order, as its Ray still runs."""
        self.client.stop_job(number)
        end = time.monotonic() + _STOPPING_SECONDS + 1
        while self.client.get_job_status(number) not in _ENDED and time.monotonic() < end:
            time.sleep(0.1)

    def _followed(self, number: str) -> tuple[int, str]:
        shown = 0
        while (status := self.client.get_job_status(number)) not in _ENDED:
            lines = self.client.get_job_logs(number).splitlines()
            for line in lines[shown:]:
                _show(line)
            shown = len(lines)
            time.sleep(1)
        if status == JobStatus.SUCCEEDED:
            return Exit.CLEAN, ""
        code = self.client.get_job_info(number).driver_exit_code
        return Exit.FAILED if code is None else code, self.client.get_job_logs(number)

    def _run_subprocess(self, command: list[str]) -> tuple[int, str]:
        """Runs a job as a process that connects to this Ray. Returns its exit code and log."""
        environment = os.environ | {"RAY_ADDRESS": self.address}
        lines: list[str] = []
        with subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    _show(line.rstrip())
                    lines.append(line)
            except KeyboardInterrupt:
                process.terminate()
                raise
        return process.returncode, "".join(lines)


def _print_left_out(out: Folder) -> None:
    """Prints how many items a job could not use, and the file that lists them."""
    if lines := (out.read_if_there(QUARANTINE) or b"").splitlines():
        print(f"   left out: {len(lines)}, listed in {out.uri_of(QUARANTINE)}", flush=True)


def _show(line: str) -> None:
    """Prints a log line that reports the progress of training."""
    if PROGRESS_LOGGER in line:
        print(f"    {line.partition(': ')[2]}", flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints the name of a step as it starts, and its duration at the end."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
