"""Runs training jobs one after another in one process and one Ray: no job pays for imports and a Ray of its own.

Called by training_runs.py. Reads a JSON line for each job, `{"job", "flags", "log"}`, from stdin; the job's output goes
to its log, and its exit code to stdout.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import ray

from jobs.common.cli import run
from pipelines.session import start_ray
from pipelines.training.config import TrainConfig
from pipelines.training.recipes import A2D, FINETUNE, PRETRAIN

RECIPES = {"pretrain_refcoco": PRETRAIN, "finetune_ytvos": FINETUNE, "finetune_a2d": A2D}


def exit_code(job: str, flags: list[str]) -> int:
    """Runs a job as its command line does, and returns the exit code the command would have."""
    try:
        run(TrainConfig, import_module(f"jobs.{job}").main, flags, recipes=RECIPES[job])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def serve() -> None:
    """Runs the jobs that stdin names until it is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start_ray(2, dashboard=True)  # two workers of half a core, and a core for the pipelines that feed them
    for line in sys.stdin:
        order = json.loads(line)
        with Path(order["log"]).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = exit_code(order["job"], order["flags"])
        time.sleep(0.5)  # the last lines of its workers are on their way
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(f"{code}\n")
        answers.flush()
    ray.shutdown()


if __name__ == "__main__":
    serve()
