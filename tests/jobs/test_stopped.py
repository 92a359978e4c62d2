"""Jobs that a signal ends, or the death of their Ray: one sentence, an exit code, and what is whole stays."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from annotate_data import moving, write_video
from patience import PATIENCE
from pipelines.errors import Exit
from prepared_data import SENTENCES, tiny_checkpoint
from training_runs import Job

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stopped")]

STOPPED = "stopped by {}: what is finished is kept, and the same command goes on from there"
KILLED = (
    "error: this job, or its Ray on this machine, was killed: what is finished is kept, and the same command goes on "
    "from there"
)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An annotation that waits for a GPU, which this machine does not have, or for one more."""
    folder = tmp_path_factory.mktemp("waiting")
    video = write_video(folder / "a.mp4", moving(0, 6, 80, 120))
    checkpoint = tiny_checkpoint(folder / "checkpoint")
    return [
        "--videos", str(video), "--text", SENTENCES[0], "--checkpoint", str(checkpoint), "--out", str(folder / "out"),
        "--short-side", "130", "--gpus-per-actor", "64", "--precision", "float32", "--num-cpus", "2", "--no-track",
    ]  # fmt: skip


@contextmanager
def waiting(flags: list[str], log: Path) -> Iterator[Job]:
    """The job, once it waits: it holds its folder, its tasks are planned, and Ray runs what comes next."""
    with Job("annotate", flags, log) as job:
        out = Path(flags[flags.index("--out") + 1])
        job.wait_until(lambda: (out / "lease.json").exists() and any(out.glob("plans/*/*.arrow")))
        job.wait_until(lambda: "Starting execution of Dataset" in job.text)
        yield job


def process_of(job: Job, name: str) -> psutil.Process:
    """A process of its Ray."""
    (found,) = [one for one in job.children() if one.name() == name]
    return found


def last_words(job: Job) -> str:
    """The last line of its log. Nothing in it is a traceback, of Python or of C++."""
    assert not re.search(r"Traceback|\*\*\* |Stack|Fatal", job.text), job.text
    return job.text.splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGINT, "Ctrl-C", Exit.INTERRUPTED), (signal.SIGTERM, "SIGTERM", Exit.TERMINATED)],
)
def test_a_signal_ends_a_job_and_its_ray_in_order(
    flags: list[str], tmp_path: Path, number: signal.Signals, name: str, code: Exit
) -> None:
    with waiting(flags, tmp_path / "log") as job:
        processes = job.children()
        job.process.send_signal(number)
        assert job.end() == code
        assert last_words(job) == STOPPED.format(name)
        assert not psutil.wait_procs(processes, timeout=10)[1]
    assert not (Path(flags[flags.index("--out") + 1]) / "lease.json").exists(), "the next run need not wait"


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_job_can_be_ended_while_its_ray_starts(flags: list[str], tmp_path: Path, name: str) -> None:
    with Job("annotate", flags, tmp_path / "log") as job:
        job.wait_until(lambda: any(one.name() == name for one in job.children()))
        job.process.send_signal(signal.SIGTERM)
        assert job.end() == Exit.TERMINATED
        assert last_words(job) == STOPPED.format("SIGTERM")


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_ray_that_dies_is_one_sentence(flags: list[str], tmp_path: Path, seconds: float) -> None:
    """At work, when Ray's C++ tends to end the driver before Python runs, or in rest."""
    with waiting(flags, tmp_path / "log") as job:
        time.sleep(seconds)
        witness = process_of(job, "sh")
        process_of(job, "raylet").kill()
        assert job.end() == Exit.FAILED
        psutil.wait_procs([witness], PATIENCE)
        assert last_words(job) == KILLED
