"""Runs jobs one after another on a local Ray, submitted where it takes submitted jobs, and shows their steps."""

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

from jobs.common.cli import Exit
from pipelines.errors import JobError
from pipelines.manifest import QUARANTINE

JOBS = Path(__file__).resolve().parents[1]
_ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


class Submitter:
    """A local Ray with its job server, for as long as the block lasts."""

    def __enter__(self) -> "Submitter":
        context = ray.init(address="local", num_cpus=4, log_to_driver=False, dashboard_host="127.0.0.1")
        self.client = JobSubmissionClient(f"http://{context.dashboard_url}")
        self.address = ray.get_runtime_context().gcs_address
        self.submits = True
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    def run(self, job: str, words: str, *, may_lack: bool = False, **paths: Path) -> None:
        """One job to its end; flags that name paths come apart from the other words, as there may be blanks in them.

        Args:
            may_lack: whether what it makes may be incomplete, which its exit code says.

        Raises:
            JobError: it failed; its log is printed.
        """
        named = [word for flag, path in paths.items() for word in (f"--{flag.replace('_', '-')}", str(path))]
        command = [sys.executable, str(JOBS / f"{job}.py"), *shlex.split(words), *named]
        with said(f"{job} {words.split(' --')[0] if job == 'prepare' else ''}".strip()):
            number = self._submitted(shlex.join(command))
            code, log = self._followed(number) if number else self._driven(command)
        if code != Exit.CLEAN and not (may_lack and code == Exit.QUARANTINE):
            print(log[-6000:], file=sys.stderr)
            raise JobError(f"{job} failed; its log is above. The command was: {shlex.join(command)}")
        if code == Exit.QUARANTINE:
            print("   incomplete: it lacks what was left out", flush=True)
        if "out" in paths:
            _say_left_out(paths["out"])

    def _submitted(self, command: str) -> str | None:
        """The number of the submitted job; None where Ray's job server does not come up.

        It does not beside another Ray on the same machine: both want one port for it.
        """
        end = time.monotonic() + 45
        while self.submits and time.monotonic() < end:
            try:
                # Named here: Ray itself gives a job whichever Ray of this machine it finds first.
                return self.client.submit_job(entrypoint=f"RAY_ADDRESS={self.address} {command}")
            except RuntimeError as error:
                if "No available agent" not in str(error):
                    raise
                time.sleep(1)
        if self.submits:
            print("   Ray takes no submitted jobs here: they are started beside it", flush=True)
        self.submits = False
        return None

    def _followed(self, number: str) -> tuple[int, str]:
        """Waits for a submitted job and shows its steps; its exit code and log."""
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

    def _driven(self, command: list[str]) -> tuple[int, str]:
        """Runs a job as a process of its own that joins this Ray; its exit code and log."""
        environment = os.environ | {"RAY_ADDRESS": self.address}
        lines: list[str] = []
        with subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                _show(line.rstrip())
                lines.append(line)
        return process.returncode, "".join(lines)


def _say_left_out(out: Path) -> None:
    """Says how much a job could not use, and where to read of it."""
    quarantine = out / QUARANTINE
    if quarantine.is_file() and (lines := quarantine.read_text(encoding="utf-8").splitlines()):
        print(f"   left out: {len(lines)}, listed in {quarantine}", flush=True)


def _show(line: str) -> None:
    """Prints what a job says of its steps."""
    if "pipelines.training.progress" in line:
        print(f"    {line.partition(': ')[2]}", flush=True)


@contextmanager
def said(what: str) -> Iterator[None]:
    """Says what begins, and how long it took."""
    print(f"== {what}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
