"""Rays of their own for tests: a head node as `ray start` makes it, and ports that nobody listens on."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pack import ROOT
from patience import PATIENCE
from patient_cluster import Cluster
from training_runs import environment

BIN = Path(sys.executable).parent
STORE = 200 * 2**20
"""Object store of a simulated node, in bytes."""


@dataclass(frozen=True)
class Head:
    """A head node that takes jobs: the URL of its job server, the environment of those who talk to it, its address."""

    address: str
    variables: dict[str, str]
    cluster: str

    def submit(self, *words: str) -> tuple[int, str]:
        """`ray job submit`: its exit code and what it printed."""
        return self._ran("submit", "--working-dir", str(ROOT), "--", *words)

    def begin(self, *words: str) -> str:
        """`ray job submit --no-wait`. Returns the id of the job."""
        number = f"job-{uuid.uuid4().hex}"
        code, said = self._ran(
            "submit", "--no-wait", "--submission-id", number, "--working-dir", str(ROOT), "--", *words
        )
        assert code == 0, said
        return number

    def ray_job(self, verb: str, number: str) -> str:
        """`ray job stop` or `ray job logs` of a job. Returns what it printed, without its own lines."""
        code, said = self._ran(verb, number)
        assert code == 0, said
        return said

    def _ran(self, verb: str, *words: str) -> tuple[int, str]:
        command = [str(BIN / "ray"), "job", verb, "--address", self.address, *words]
        ran = subprocess.run(command, env=self.variables, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return ran.returncode, ran.stdout + ran.stderr


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def started_ray() -> Iterator[Head]:
    """`ray start --head`, for as long as the block lasts.

    Its RAY_TMPDIR, where Ray writes down which cluster was started last, is its own: else a job submitted to any Ray
    of this machine may join this one.
    """
    flags = ("--port", "--dashboard-port", "--ray-client-server-port", "--dashboard-agent-listen-port",
             "--metrics-export-port")  # fmt: skip
    ports = free_ports(len(flags))
    named = [f"{flag}={port}" for flag, port in zip(flags, ports, strict=True)]
    store = f"--object-store-memory={300 * 2**20}"
    address = f"http://127.0.0.1:{ports[1]}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        # The head and who submits: the same way to prove who they are, and our python. --working-dir brings the code.
        variables = environment() | {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
        variables["RAY_API_SERVER_ADDRESS"] = address
        variables["RAY_JOB_STOP_WAIT_TIME_S"] = "30"  # as cluster/ has it
        variables["PATH"] = f"{BIN}{os.pathsep}{variables['PATH']}"
        del variables["PYTHONPATH"]
        head = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats", store, *named],
            env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not _answers(f"{address}/api/version"):
                assert head.poll() is None, "ray start ended"
                assert time.monotonic() < end, "no dashboard came up"
                time.sleep(0.5)
            yield Head(address, variables, f"127.0.0.1:{ports[0]}")
        finally:
            # In order, `ray stop` would wait for half a minute.
            for process in [*psutil.Process(head.pid).children(recursive=True), head]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait()


def simulated_cluster(num_cpus: int) -> Cluster:
    """A cluster of one node, the head, in processes of this machine.

    Its dashboard, which Ray Train wants, has a port of its own: here Ray looks for no other when 8265 is taken. The
    nodes inherit the environment, and so ask this one.
    """
    (port,) = free_ports(1)
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    head = {"num_cpus": num_cpus, "dashboard_port": port, "object_store_memory": STORE}
    return Cluster(initialize_head=True, head_node_args={"include_dashboard": True, **head})


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
