"""A service of jobs/serve.py for tests: a process of its own, on a free port, with a checkpoint of random weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import httpx
import psutil

from annotate_data import moving, write_video
from pack import ROOT
from patience import PATIENCE
from prepared_data import tiny_checkpoint

SIDE = 40
"""Short side of the model's frames, and of the videos: nothing is resized, so that frames are equal to the last bit."""
REPLICA = "ServeReplica:sgmg:Model"
"""What processes of replicas are called."""


@dataclass(frozen=True)
class Served:
    """A running service.

    Attributes:
        url: of its page.
        video: a video of one window.
        sentences: two.
        checkpoint: that it serves.
        process: of the job.
        log: of the job.
        folder: for uploads and other files that it makes.
    """

    url: str
    video: Path
    sentences: tuple[str, str]
    checkpoint: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    folder: Path

    def replicas(self) -> list[psutil.Process]:
        """The processes of its replicas."""
        return [one for one in psutil.Process(self.process.pid).children(recursive=True) if REPLICA in _words(one)]

    def counts(self) -> dict[str, float]:
        """Its numbers, by name and labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def idle(self) -> None:
        """Waits until it answers nobody."""
        until = time.monotonic() + PATIENCE
        while self.counts()["sgmg_running_requests"]:
            assert time.monotonic() < until, "it is still at work"
            time.sleep(0.05)


@contextmanager
def serving(folder: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Runs jobs/serve.py, and ends it with SIGINT, as Ctrl-C does."""
    checkpoint = tiny_checkpoint(folder / "checkpoint")
    video = write_video(folder / "video.mp4", moving(3, 12, SIDE, 56), codec="libx264")
    port, log, temporary = _free_port(), folder / "log", folder / "temporary"
    temporary.mkdir()
    command = [
        *(sys.executable, str(ROOT / "jobs/serve.py"), "--checkpoint", str(checkpoint), "--port", str(port)),
        *("--short-side", str(SIDE), "--window", "16", "--min-score", "0.0", *flags),
    ]
    with log.open("wb") as stream:
        surroundings = os.environ | {"TMPDIR": str(temporary), "RAY_TMPDIR": gettempdir()} | dict(environment or {})
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=surroundings, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, log)
        yield Served(url, video, ("the left one", "a dog"), checkpoint, process, log, temporary)
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    finally:
        process.kill()


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while b"Ctrl-C ends it" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
