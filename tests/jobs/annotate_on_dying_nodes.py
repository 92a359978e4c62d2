"""Runs jobs/annotate.py on three simulated nodes, and kills nodes and workers at random in mid-run.

Called by test_annotate_killed.py with a seed and the flags of the job; ends with the job's exit code.
"""

import random
import sys
import threading
import time
from pathlib import Path

import ray

from jobs.annotate import AnnotateConfig, main
from jobs.common.cli import parse
from jobs.common.stopping import safe_exit
from patient_cluster import Cluster
from ray_workers import raylet_of, workers_at

DECODE, PREDICT, WRITE = "MapBatches(Decode", "MapBatches(PredictStage)", "MapBatches(Write"
STORE = 200 * 2**20


class Chaos:
    """A cluster that loses what the dice say; a lost node is replaced by a new one.

    A worker that decodes comes first: all may be decoded by the time that anything else has been struck. The others
    have something to do until the run ends.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(3)]
        self.cluster.wait_for_nodes()
        others = ["a node", "a node", PREDICT, WRITE]
        self.dice.shuffle(others)
        self.left = [DECODE, *others]

    def strike(self) -> None:
        """Kills the next on the list, where one can be found that is at work."""
        what = self.left[0]
        if what == "a node":
            doomed = self.dice.choice(self.nodes)
            self.nodes.remove(doomed)
            self.cluster.remove_node(doomed, allow_graceful=False)
            self.nodes.append(self.cluster.add_node(num_cpus=2, object_store_memory=STORE))
        else:
            victims = [process for node in self.nodes for process in workers_at(what, raylet_of(node))]
            if not victims:
                return
            self.dice.choice(victims).kill()
        self.left.pop(0)
        sys.stdout.write(f"killed {what}\n")

    def strike_next(self, job: threading.Thread) -> None:
        """Waits until the next on the list is at work, and kills it."""
        before = len(self.left)
        while job.is_alive() and len(self.left) == before:
            self.strike()
            time.sleep(0.005)


def run(seed: int, config: AnnotateConfig) -> int:
    chaos = Chaos(seed)
    ray.init(address=chaos.cluster.address, log_to_driver=False)
    codes: list[int] = []
    job = threading.Thread(target=lambda: codes.append(main(config)), daemon=True)
    job.start()
    chaos.strike_next(job)
    while job.is_alive() and not any(Path(config.out).glob("windows/*/*/[!.]*.parquet")):
        time.sleep(0.02)
    while job.is_alive() and chaos.left:
        chaos.strike_next(job)
        job.join(chaos.dice.uniform(0.2, 2))
    job.join()
    ray.shutdown()
    chaos.cluster.shutdown()
    return codes[0]


if __name__ == "__main__":
    leave = safe_exit()
    leave(run(int(sys.argv[1]), parse(AnnotateConfig, sys.argv[2:])))
