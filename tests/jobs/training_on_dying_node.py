"""Trains on three simulated nodes, and takes one away that holds a worker, in mid-run; then adds another.

Called by test_training_cluster.py with a job and its flags. It ends with the job's exit code.
"""

import logging
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import psutil
import ray

from jobs.common.cli import parse
from jobs.common.stopping import safe_exit
from pipelines.training.config import TrainConfig
from ray_heads import STORE, simulated_cluster
from training_runs import checkpoints, run_of


def workers_of(node: object) -> int:
    """Training workers on a node."""
    raylet = node.all_processes["raylet"][0].process.pid  # pyright: ignore[reportAttributeAccessIssue]
    count = 0
    for process in psutil.Process(raylet).children(recursive=True):
        try:
            count += " ".join(process.cmdline()).startswith("ray::RayTrainWorker")
        except psutil.Error:
            continue
    return count


def run(job: str, flags: list[str]) -> int:
    logging.basicConfig(level=logging.INFO)
    cluster = simulated_cluster(num_cpus=0)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(3)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)
    module = import_module(f"jobs.{job}")
    recipes = {"finetune_ytvos": "FINETUNE", "pretrain_refcoco": "PRETRAIN"}[job]
    config = parse(TrainConfig, flags, recipes=getattr(module, recipes))
    folder = run_of(job, Path(config.storage), config.run_name)
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(module.main(config)), daemon=True)
    running.start()
    while running.is_alive():
        doomed = next((node for node in nodes if workers_of(node)), None)
        if doomed and checkpoints(folder):
            cluster.remove_node(doomed, allow_graceful=False)
            sys.stdout.write("killed a node\n")
            time.sleep(5)
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
            sys.stdout.write("added a node\n")
            break
        time.sleep(0.05)
    running.join()
    ray.shutdown()
    cluster.shutdown()
    return codes[0] if codes else 1


if __name__ == "__main__":
    leave = safe_exit()
    leave(run(sys.argv[1], sys.argv[2:]))
