"""Runs jobs/predict.py on three simulated nodes, and takes one away that holds a predictor, in mid-run.

Called by test_predict_killed.py with prepared data, checkpoint and output folder; ends with the job's exit code.
"""

import sys
import threading
import time
from pathlib import Path

import ray

from jobs.common.stopping import safe_exit
from jobs.predict import PredictConfig, main
from patient_cluster import Cluster
from pipelines.ledger import PREDICTIONS
from ray_workers import raylet_of, workers_at


def run(data: str, checkpoint: str, out: str) -> int:
    store = 200 * 2**20
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": store}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=store) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    codes: list[int] = []
    config = PredictConfig(data, checkpoint, out, short_side=130, actors="2:2")
    job = threading.Thread(target=lambda: codes.append(main(config)), daemon=True)
    job.start()
    while job.is_alive():
        doomed = next((node for node in nodes if workers_at("MapBatches(PredictStage)", raylet_of(node))), None)
        if doomed and any((Path(out) / PREDICTIONS).glob("[!.]*.parquet")):
            cluster.remove_node(doomed, allow_graceful=False)
            sys.stdout.write("killed a node\n")
            break
        time.sleep(0.02)
    job.join()
    ray.shutdown()
    cluster.shutdown()
    return codes[0]


if __name__ == "__main__":
    leave = safe_exit()
    leave(run(*sys.argv[1:]))
