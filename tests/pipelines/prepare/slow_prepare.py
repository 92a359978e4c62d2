"""Prepares Ref-YouTube-VOS slowly, so that something can be killed meanwhile. A script of test_run.py.

Usage: slow_prepare.py local|cluster RAW OUT MARKS. Every reading leaves a file `<video>-<pid>` in MARKS. With `cluster`
three nodes are simulated, and the first that reads and is not the head is killed.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import ray

from jobs.common.stopping import safe_exit
from patient_cluster import Cluster
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.prepare.run import finish, plan_shards, shards_to_do, write_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.session import start_local
from pipelines.sources.base import Item, Reading
from pipelines.sources.ytvos import RefYouTubeVOS


@dataclass(frozen=True)
class Slow(RefYouTubeVOS):
    """Reads as the source it is made of, but waits first."""

    marks: str = ""

    def read(self, item: Item) -> Reading:
        node = ray.get_runtime_context().get_node_id()
        (Path(self.marks) / f"{item.video}-{os.getpid()}").write_text(node)
        time.sleep(1)
        return RefYouTubeVOS.read(self, item)


def kill_a_node(cluster: Cluster, marks: Path) -> None:
    """Waits until another node than the head reads, and removes that one without a word."""
    nodes = {node.node_id: node for node in cluster.worker_nodes}
    while True:
        for mark in marks.iterdir():
            if node := nodes.get(mark.read_text()):
                (marks.parent / "killed").write_text(mark.name)
                cluster.remove_node(node, allow_graceful=False)
                return
        time.sleep(0.05)


def main(mode: str, raw: str, out: str, marks: str) -> None:
    cluster = None
    if mode == "cluster":
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 200 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=200 * 2**20)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address)
        threading.Thread(target=kill_a_node, args=(cluster, Path(marks)), daemon=True).start()
    else:
        start_local(2, object_store_memory=200 * 2**20)
    source, folder = Slow(Folder(raw), "train", marks=marks), Folder(out).make()
    plans = plan_shards(source, {}, rows_per_shard=1)
    for _ in write_shards(shards_to_do(plans, folder), ShardWriter(source, folder)):
        pass
    finish(plans, source, folder, {})
    ray.shutdown()
    if cluster:
        cluster.shutdown()


if __name__ == "__main__":
    leave = safe_exit()
    main(*sys.argv[1:])
    leave(Exit.CLEAN)
