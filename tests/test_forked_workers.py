"""What makes the workers of a test's Ray cheap leaves them as Ray's own start of them does."""

import os
import threading
from typing import Any

import psutil
import pytest
import ray

from python_path import FORKED_WORKERS

pytestmark = [
    pytest.mark.usefixtures("ray_local"),
    pytest.mark.skipif(not FORKED_WORKERS, reason="forks of one process are Linux's"),
]


@ray.remote(num_cpus=1)
class Worker:
    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def parent(self) -> list[str]:
        return psutil.Process().parent().cmdline()  # pyright: ignore[reportOptionalMemberAccess]

    def group(self) -> int:
        return os.getpgid(0)

    def draws(self) -> set[str]:
        """Random numbers of Ray's C++, in this thread and in another."""
        drawn: set[str] = set()

        def draw() -> None:
            drawn.add(ray.ActorClassID.from_random().hex())

        other = threading.Thread(target=draw)
        other.start()
        other.join()
        draw()
        return drawn


def test_workers_share_what_is_imported_and_nothing_else() -> None:
    workers: list[Any] = [Worker.options(runtime_env={"env_vars": {"NUMBER": number}}).remote() for number in "01"]
    first, second = workers
    try:
        assert "fork_server.py" in ray.get(first.parent.remote())[1]
        assert ray.get([worker.variable.remote("NUMBER") for worker in workers]) == ["0", "1"]
        assert ray.get(first.group.remote()) != ray.get(second.group.remote()), "Ray kills them by their group"
        assert len(set().union(*ray.get([worker.draws.remote() for worker in workers]))) == 4
    finally:
        for worker in workers:
            ray.kill(worker)
