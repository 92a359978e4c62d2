"""The function that Ray Train runs in every worker. Imports nothing heavy: Ray Train's controller unpickles it too."""

from typing import Any

import ray


def train_loop_per_worker(train_loop_config: dict[str, Any]) -> None:
    """Runs the `WorkerTask` that `train_loop_config["task"]` refers to."""
    from pipelines.training.worker import run_worker

    run_worker(ray.get(train_loop_config["task"]))
