"""Trains with one to two workers on a cluster that grows by a node and shrinks again, and says how many there were.

Called by test_training_elastic.py with flags of jobs/finetune_ytvos.py. A worker takes two cores: the head's one
is left to the pipelines. It ends once the training has gone on with one worker, two, and one.
"""

import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

import ray
from ray.train import ScalingConfig

from jobs.common.cli import parse
from jobs.finetune_ytvos import main
from patience import PATIENCE
from pipelines.training import run as training_run
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import FINETUNE
from ray_heads import STORE, simulated_cluster
from ray_workers import workers_at
from training_runs import checkpoints, run_of


def run(flags: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    # Ray looks for new nodes once a minute; that is the only thing hurried here.
    training_run.ScalingConfig = partial(ScalingConfig, elastic_resize_monitor_interval_s=3)  # pyright: ignore
    cluster = simulated_cluster(num_cpus=1)
    cluster.add_node(num_cpus=2, object_store_memory=STORE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address)
    config = parse(TrainConfig, flags, recipes=FINETUNE)
    folder = run_of("finetune_ytvos", Path(config.storage), config.run_name)
    running = threading.Thread(target=main, args=(config,), daemon=True)
    running.start()

    def goes_on(workers: int) -> None:
        """Waits until so many workers train, and have come to a checkpoint of their own."""
        end = time.monotonic() + PATIENCE
        known = checkpoints(folder)
        while _working() != workers or not set(checkpoints(folder)) - set(known):
            if _working() != workers:
                known = checkpoints(folder)
            if not running.is_alive() or time.monotonic() > end:
                raise SystemExit(f"with {_working()} workers it did not come to {workers}")
            time.sleep(0.2)
        sys.stdout.write(f"TRAINS WITH {workers}\n")

    goes_on(1)
    second = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    goes_on(2)
    cluster.remove_node(second, allow_graceful=False)
    goes_on(1)
    sys.stdout.flush()
    os._exit(0)  # the training has no end; whoever started this ends what is left of it


def _working() -> int:
    """Training workers that are alive."""
    return len(workers_at("ray::RayTrainWorker"))


if __name__ == "__main__":
    run(sys.argv[1:])
