"""How a job ends: by itself as Python does, but for destructors in C++; by a signal with one sentence and its code."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from jobs.common.stopping import _raylets, end_streams
from pack import ROOT
from patience import PATIENCE
from pipelines.errors import Exit
from s3_server import S3Server

JOB = '''
"""A job that does what it is told."""
import atexit, ctypes, threading, time
from dataclasses import dataclass
from jobs.common.cli import run
from pipelines.errors import Exit, JobError
from pipelines.runtime.signals import interrupt_this_process

@dataclass(frozen=True)
class Config:
    """Told."""
    does: str
    """What."""

def finish():
    time.sleep(0.3)
    print("thread", end=", ")

def main(config):
    libc = ctypes.CDLL(None)
    libc.on_exit(libc.abort, None)  # a library that crashes when it is taken down
    said = "ready"
    while config.does == "goes on":
        try:
            print(said, flush=True)
            time.sleep(600)
        except BaseException:
            said = "again"
    if config.does in ("ends", "leaves out", "fails"):
        atexit.register(print, "at the end")
        threading.Thread(target=finish).start()
        print("written", end=", ")
        if config.does == "fails":
            raise JobError("It failed.")
        return Exit.QUARANTINE if config.does == "leaves out" else None
    if config.does == "sleeps":
        print(said, flush=True)
        time.sleep(600)
    try:
        print(said, flush=True)
        if config.does == "interrupts itself":
            interrupt_this_process()
        time.sleep(600)
    except KeyboardInterrupt as error:
        raise JobError("It ended early. The last checkpoint is kept; the same command goes on from it.") from error

if __name__ == "__main__":
    run(Config, main)
'''


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end of the block if it still runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def job(folder: Path, does: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The job above, once it does what it is told."""
    script = folder / "job.py"
    script.write_text(JOB)
    with running(str(script), "--does", does, **options) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said on stderr."""
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


SENTENCE = "stopped by {}: what is finished is kept, and the same command goes on from there\n"


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [("ends", Exit.CLEAN, ""), ("leaves out", Exit.QUARANTINE, ""), ("fails", Exit.FAILED, "error: It failed.\n")],
)
def test_a_job_whose_libraries_crash_as_they_are_taken_down_ends_with_its_own_exit_code_and_loses_nothing(
    tmp_path: Path, does: str, code: Exit, said: str
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    with running(str(tmp_path / "job.py"), "--does", does) as process:
        assert process.communicate(timeout=PATIENCE) == ("written, thread, at the end\n", said)
        assert process.returncode == code


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGINT, "Ctrl-C", Exit.INTERRUPTED), (signal.SIGTERM, "SIGTERM", Exit.TERMINATED)],
)
def test_a_signal_is_one_sentence_and_an_exit_code(
    tmp_path: Path, number: signal.Signals, name: str, code: Exit
) -> None:
    with job(tmp_path, "sleeps") as process:
        process.send_signal(number)
        assert ended(process) == (code, SENTENCE.format(name))


def test_a_job_that_says_more_of_it_ends_with_the_code_of_the_signal_too(tmp_path: Path) -> None:
    with job(tmp_path, "says more") as process:
        process.send_signal(signal.SIGTERM)
        code, said = ended(process)
    assert code == Exit.TERMINATED
    assert said == "error: It ended early. The last checkpoint is kept; the same command goes on from it.\n"


def test_a_job_that_interrupts_itself_has_failed(tmp_path: Path) -> None:
    with job(tmp_path, "interrupts itself") as process:
        code, said = ended(process)
    assert code == Exit.FAILED
    assert said.startswith("error: It ended early.")


def test_of_a_killed_job_a_witness_speaks(tmp_path: Path) -> None:
    with job(tmp_path, "sleeps") as process:
        process.kill()
        code, said = ended(process)
    assert code == -signal.SIGKILL
    assert said == (
        "error: this job, or its Ray on this machine, was killed: what is finished is kept, and the same command goes "
        "on from there\n"
    )


def test_a_second_signal_ends_at_once_what_does_not_listen(tmp_path: Path) -> None:
    with job(tmp_path, "goes on") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        assert process.stdout.readline() == "again\n"
        time.sleep(0.6)  # else it counts as the same
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (Exit.TERMINATED, SENTENCE.format("SIGTERM"))


def test_a_call_of_c_that_does_not_return_ends_at_the_second_signal(s3_server: S3Server) -> None:
    flags = ["--predictions", s3_server.uri("x"), "--format", "mevis", "--out", "/tmp/a.zip"]
    s3_server.requests()
    s3_server.slow(PATIENCE)
    try:
        with running(str(ROOT / "jobs" / "submit.py"), *flags) as process:
            while not s3_server.requests():
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            time.sleep(0.6)
            assert process.poll() is None, "Python's own handlers have to wait"
            process.send_signal(signal.SIGINT)
            assert ended(process) == (Exit.INTERRUPTED, SENTENCE.format("Ctrl-C"))
    finally:
        s3_server.slow(0)


@pytest.mark.usefixtures("ray_local")
def test_no_thread_of_a_stream_calls_ray_after_its_end(tmp_path: Path) -> None:
    told = tmp_path / "told to end"

    def wait(row: dict[str, Any]) -> dict[str, Any]:
        while not told.exists():
            time.sleep(0.05)
        return row

    def read() -> None:
        with suppress(Exception):
            list(ray.data.range(1).map(wait).iter_rows())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not streams():
            time.sleep(0.01)
        end_streams()
        assert not streams()
        reader.join(PATIENCE)
        assert not reader.is_alive(), "who waits for it is told"
    finally:
        told.touch()  # its task would hold a core of the Ray that tests share


@pytest.mark.usefixtures("ray_local")
def test_ray_is_watched_where_python_and_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _raylets()
    assert len(found) == 1
    os.close(found[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refused)
        assert _raylets() == []
    monkeypatch.delattr(os, "pidfd_open")  # as where Python was built for an old system
    assert _raylets() == []


def streams() -> list[threading.Thread]:
    """The threads of Ray Data's streams that run."""
    return [thread for thread in threading.enumerate() if isinstance(thread, StreamingExecutor) and thread.is_alive()]


def refused(pid: int) -> int:
    raise PermissionError(f"no pidfd of {pid}")


def test_a_shells_background_job_goes_on_when_others_are_interrupted(tmp_path: Path) -> None:
    ignoring = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    with job(tmp_path, "sleeps", preexec_fn=ignoring) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (Exit.TERMINATED, SENTENCE.format("SIGTERM"))
