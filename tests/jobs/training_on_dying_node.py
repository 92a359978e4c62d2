"""Trains on three simulated nodes, adds a fourth, and takes one away that holds a worker, as a spot machine is.

Ray is told some seconds before; the run writes a checkpoint then, and the node is gone at once after that.

Called by test_training_cluster.py with a job and its flags. It ends with the job's exit code.
"""

import logging
import subprocess
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
from pipelines.training.data import train_data
from ray_heads import STORE, simulated_cluster
from ray_workers import raylet_of, workers_at
from training_runs import LAST, PRETRAIN, checkpoints, run_of


def workers_of(node: object) -> list[psutil.Process]:
    """Training workers on a node."""
    return workers_at("ray::RayTrainWorker", raylet_of(node))


def give_notice(node_id: str) -> None:
    """Tells Ray that a node will be taken away, as the autoscaler of a cloud does."""
    words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    words += ["--address", ray.get_runtime_context().gcs_address]
    words += ["--node-id", node_id, "--deadline-remaining-seconds", "60"]
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "drain-node", *words], check=True)


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
    # Only a notice has a checkpoint written after another step than these.
    epoch = train_data(config, "images" if job == PRETRAIN else "clips").plan(0).steps
    regular = {step for step in range(LAST + 1) if step % config.checkpoint_every == 0 or step % epoch == 0} | {LAST}
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(module.main(config)), daemon=True)
    running.start()
    noticed = False
    while running.is_alive():
        doomed = next((node for node in nodes if workers_of(node)), None)
        if doomed and checkpoints(folder) and not noticed:
            noticed = True
            held = workers_of(doomed)
            for worker in held:  # a notice takes seconds, in which the run would come to its end
                worker.suspend()
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
            give_notice(doomed.node_id)
            for worker in held:
                worker.resume()
        if doomed and set(checkpoints(folder)) - regular:
            for worker in workers_of(doomed):  # no step more
                worker.suspend()
            sys.stdout.write(f"killed a node after {max(checkpoints(folder))}\n")
            cluster.remove_node(doomed, allow_graceful=False)
            break
        time.sleep(0.05)
    running.join()
    ray.shutdown()
    cluster.shutdown()
    return codes[0] if codes else 1


if __name__ == "__main__":
    leave = safe_exit()
    leave(run(sys.argv[1], sys.argv[2:]))
