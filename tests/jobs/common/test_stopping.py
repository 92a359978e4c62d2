"""A job ends as Python does, but for the destructors of libraries in C++."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pack import ROOT
from pipelines.errors import Exit

JOB = """
'''A job with a library that crashes when it is taken down.'''
import atexit, ctypes, threading, time
from dataclasses import dataclass
from jobs.common.cli import run
from pipelines.errors import Exit, JobError

@dataclass(frozen=True)
class Config:
    does: str

def finish():
    time.sleep(0.3)
    print("thread", end=", ")

def main(config):
    libc = ctypes.CDLL(None)
    libc.on_exit(libc.abort, None)
    atexit.register(print, "at the end")
    threading.Thread(target=finish).start()
    print("written", end=", ")
    if config.does == "fails":
        raise JobError("It failed.")
    if config.does == "leaves out":
        return Exit.QUARANTINE

if __name__ == "__main__":
    run(Config, main)
"""


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [("all", Exit.CLEAN, ""), ("leaves out", Exit.QUARANTINE, ""), ("fails", Exit.FAILED, "error: It failed.\n")],
)
def test_a_job_whose_libraries_crash_as_they_are_taken_down_ends_with_its_own_exit_code_and_loses_nothing(
    tmp_path: Path, does: str, code: Exit, said: str
) -> None:
    (tmp_path / "job.py").write_text(JOB)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, tmp_path / "job.py", "--does", does],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "written, thread, at the end\n", said)
