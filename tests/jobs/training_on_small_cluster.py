"""What a training says of a cluster that is too small, that loses a node for good, or whose nodes share no storage.

Called by test_training_cluster.py with flags of jobs/finetune_ytvos.py; prints a line for each of the three.
"""

import logging
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import ray

from jobs.common.cli import parse
from jobs.common.stopping import safe_exit
from jobs.finetune_ytvos import main
from pipelines.errors import Exit, JobError
from pipelines.files import Folder
from pipelines.training.cluster import check_storage
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE
from ray_heads import STORE, simulated_cluster
from training_runs import checkpoints, run_of


def said_by(config: TrainConfig) -> str:
    try:
        return f"ended with {main(config)}"
    except JobError as error:
        return str(error)


def run(flags: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    cluster = simulated_cluster(num_cpus=2)
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)
    config = parse(TrainConfig, flags, recipes=FINETUNE)

    # A path that each process reads in its own way, as nodes do whose disks are their own.
    os.chdir(config.storage)
    try:
        check_storage(Folder("/proc/self/cwd/unshared"))
    except JobError as error:
        sys.stdout.write(f"UNSHARED {error}\n")
    check_storage(Folder(f"{config.storage}/shared"))

    # Three workers of a core each, and a core for their pipelines, on three cores.
    large = replace(config, name="large", workers="3", cpus_per_worker=1, global_batch=6, start_timeout=0.05)
    sys.stdout.write(f"TOO FEW {said_by(large)}\n")

    # Two and a core, all three cores: of these, one goes and does not come back.
    lost = replace(config, name="lost", cpus_per_worker=1, start_timeout=0.1, epochs=90, max_steps=0)
    folder = run_of("finetune_ytvos", Path(config.storage), "lost")

    def kill() -> None:
        while not checkpoints(folder):
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    sys.stdout.write(f"LOST {said_by(lost)}\n")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    leave = safe_exit()
    run(sys.argv[1:])
    leave(Exit.CLEAN)
