"""What the workers of a Ray are at, by the titles of their processes."""

import time
from contextlib import suppress
from typing import Any

import psutil

_LOOK_AGAIN = 0.5
"""Seconds after which the tree of processes is read again. That takes longer than a small video is decoded."""
_trees: dict[int, tuple[float, list[psutil.Process]]] = {}


def workers_at(title: str, root: int | None = None) -> list[psutil.Process]:
    """Processes whose title holds these words.

    Args:
        title: what a worker does, as `ray::RayTrainWorker` or a part of the name of a task.
        root: process that they stand below; by default this one.
    """
    root = psutil.Process().pid if root is None else root
    read, processes = _trees.get(root, (0.0, []))
    if time.monotonic() - read > _LOOK_AGAIN:
        processes = psutil.Process(root).children(recursive=True)
        _trees[root] = time.monotonic(), processes
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_worker_at(title: str) -> bool:
    """Kills one of `workers_at`; returns whether there was one, and it had not ended meanwhile."""
    for process in workers_at(title):
        with suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


def raylet_of(node: Any) -> int:
    """The process of a node of a cluster that its workers stand below."""
    return node.all_processes["raylet"][0].process.pid
