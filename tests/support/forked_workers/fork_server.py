"""Forks Ray's workers off a process that has imported what they import.

A training of our tests starts 20 workers, each of which would import Ray, PyTorch and more for 2 to 5 s of a core: more
than half of what the slow tests cost. The first worker that a raylet starts becomes this instead. It stands below its
raylet in the tree of processes, its workers below it, and it ends with its raylet. In a worker runs what Ray has it
run, `default_worker.py`.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

from fork_client import address, ask

MODULES = (
    "ray._private.workers.default_worker", "ray.data", "ray.train.torch", "pandas", "pyarrow.dataset", "torch", "av",
    "cv2",
)  # fmt: skip
"""What the workers of our tests import."""
OURS = ("pipelines.clips.stream", "pipelines.inference.actor", "pipelines.training.worker")
"""What they import of the project, where the path has it."""


def preload() -> Iterator[str]:
    """Imports the modules, and yields the name of each.

    No random number of Ray's C++ is drawn by it: all workers would go on from the same state.
    A decorator, `ray.remote`, draws one for the ID of a class.
    """
    from ray import ActorClassID

    actor: Any = import_module("ray.actor")

    class DrawnByTheSystem:
        @staticmethod
        def from_random() -> ActorClassID:
            return ActorClassID(os.urandom(ActorClassID.size()))

    actor.ActorClassID = DrawnByTheSystem
    for name in MODULES + OURS * bool(find_spec("pipelines")):
        import_module(name)
        yield name
    actor.ActorClassID = ActorClassID


def serve(listener: socket.socket, raylet: int, request: dict[str, Any]) -> NoReturn:
    """Forks a worker for this request, and for each that arrives, until the raylet has ended.

    Args:
        listener: socket that requests come to.
        raylet: file descriptor that becomes readable when the raylet ends.
        request: the first one.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a worker that has ended is forgotten at once
    gc.freeze()  # a collection in a worker would copy what it has in common with the others
    while True:
        if os.fork() == 0:
            listener.close()
            os.close(raylet)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work(request)
        ready, _, _ = select.select([listener, raylet], [], [])
        if raylet in ready:
            os._exit(0)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            request = json.loads(stream.read())


def work(request: dict[str, Any]) -> NoReturn:
    """Runs a worker in this process, as Ray's own start of it would leave it."""
    os.setpgid(0, 0)  # the group that the raylet kills when the worker has ended
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["folder"])
    sys.argv = request["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def main() -> None:
    """Becomes the fork server of its raylet; where another process was faster, asks that."""
    with open(int(sys.argv[1]), "rb") as file:  # noqa: PTH123
        file.seek(0)
        request = file.read().decode()
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address())
        except OSError:
            while not ask(request):  # it does not listen yet
                time.sleep(0.01)
            return
        listener.listen(64)
        raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
        for _ in preload():
            if select.select([raylet], [], [], 0)[0]:  # a Ray may live for less than this takes
                return
        serve(listener, raylet, json.loads(request))


if __name__ == "__main__":
    main()
