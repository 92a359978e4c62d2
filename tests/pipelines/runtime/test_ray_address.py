"""An address where no Ray is, said in a sentence."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import ray

from pack import ROOT
from patience import PATIENCE
from pipelines.errors import JobError
from pipelines.runtime import ray_address
from pipelines.runtime.ray_address import check_cluster
from pipelines.session import start_ray


@pytest.fixture
def answering() -> Iterator[Callable[[bytes | None], str]]:
    """Starts a server that answers with some bytes, or not at all; returns its address."""
    ended = threading.Event()
    with ExitStack() as stack:

        def start(answer: bytes | None) -> str:
            class Answer(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    if answer is None:
                        ended.wait()
                        return
                    with suppress(ConnectionError):  # who asked may be gone
                        self.request.recv(100)
                        self.request.sendall(answer)

            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer))
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            stack.callback(server.shutdown)
            return f"127.0.0.1:{server.server_address[1]}"

        yield start
        ended.set()  # the servers wait for their connections to end


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_nobody_there_is_one_sentence(prefix: str) -> None:
    began = time.monotonic()
    with pytest.raises(
        JobError, match=r"^No Ray cluster answers at RAY_ADDRESS=.*\(Connection refused\). Start it, mend"
    ):
        check_cluster(prefix + nobody(), seconds=2)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"HTTP/1.0 400 Bad Request\r\n\r\n", "something else than Ray listens"), (b"", "something else than Ray")],
)
def test_another_server_is_told_from_ray(answering: Callable[[bytes | None], str], answer: bytes, said: str) -> None:
    with pytest.raises(JobError, match=said):
        check_cluster(answering(answer), seconds=0)


def test_a_server_that_says_nothing_is_no_ray(answering: Callable[[bytes | None], str]) -> None:
    with pytest.raises(JobError, match="does not speak as Ray does"):
        check_cluster(answering(None), seconds=0)


@pytest.mark.parametrize("address", ["nonsense", "host:99999", "host:port", "host"])
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    with pytest.raises(JobError, match=f"RAY_ADDRESS={address} is no address of a Ray cluster. Give host:port"):
        check_cluster(address)


@pytest.mark.parametrize("address", ["auto", "local", "anyscale://cluster"])
def test_addresses_without_a_port_are_left_to_ray(address: str) -> None:
    check_cluster(address)


@pytest.mark.usefixtures("ray_local")
def test_a_cluster_that_is_there_is_found() -> None:
    check_cluster(ray.get_runtime_context().gcs_address)


def test_a_job_ends_with_the_sentence_and_no_traceback() -> None:
    program = "from jobs.common.cli import run\n"  # only what a job does with an error of start_ray
    program += "from pipelines.session import start_ray\nfrom dataclasses import dataclass\n"
    program += "@dataclass(frozen=True)\nclass C:\n    pass\n\nrun(C, lambda _: start_ray())\n"
    environment = os.environ | {"RAY_ADDRESS": nobody(), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", program]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ray_address._SECONDS < 15
    assert ran.returncode == 1
    assert "No Ray cluster answers at RAY_ADDRESS=" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_ray_says_of_a_cluster_that_it_cannot_join_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch:\n  Ray: 2.9 against 2.60")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    said = "Ray cannot be reached at RAY_ADDRESS=auto: Version mismatch: Ray: 2.9 against 2.60. Mend the"
    with pytest.raises(JobError, match=f"^{said}"):
        start_ray()
