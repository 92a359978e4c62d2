"""Checks of the cluster before training: enough resources, and storage that all nodes share."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.errors import JobError
from pipelines.files import Folder
from pipelines.training.ray_train import autoscaler_limits, started_by_this_process

log = logging.getLogger(__name__)

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Workers:
    """Smallest number of workers of a run, and the resources that each needs on one node."""

    count: int
    each: Resources

    def unplaced(self) -> int:
        """Returns how many workers would find no node with room, if nothing else ran there."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = [(name, count) for name, count in self.each.items() if count]
        places = sum(min(int(node.get(name, 0) / count + 1e-9) for name, count in needs) for node in nodes if needs)
        return max(0, self.count - places) if needs else 0


def wait_for_resources(
    needed: Resources, workers: Workers, flag: str, timeout: float, now: Callable[[], float] = time.monotonic
) -> None:
    """Waits until the cluster has the resources, and a node with room for each worker; logs what is missing.

    Args:
        needed: resources of the smallest number of workers and of the pipelines that feed them.
        workers: the same workers.
        flag: flag that asks for them, for messages.
        timeout: minutes.
        now: clock, in seconds.

    Raises:
        JobError: the cluster and its autoscaler can never give the resources (raised at once), or did not in time.
    """
    most = max_cluster_resources()
    if most is not None and (missing := missing_resources(needed, most)):
        raise JobError(
            f"{flag} need {resources_text(needed)}, but of that this cluster can never give "
            f"{resources_text(missing)}. Ask for fewer workers, or for a larger cluster."
        )
    end, last_logged = now() + 60 * timeout, -1e9
    while missing := _missing(needed, workers):
        at = now()
        if at > end:
            raise JobError(
                f"{flag} need {resources_text(needed)}; after {timeout:g} minutes "
                f"{missing} are still missing. Start more nodes, ask for fewer workers, or wait longer "
                f"with --start-timeout."
            )
        if at - last_logged > 30:
            log.info("waiting for nodes: %s missing, up to %.0f more minutes", missing, (end - at) / 60)
            last_logged = at
        time.sleep(1)


def _missing(needed: Resources, workers: Workers) -> str:
    """Returns the resources that the cluster lacks now, as text; empty if none."""
    if missing := missing_resources(needed, ray.cluster_resources()):
        return resources_text(missing)
    unplaced = workers.unplaced()
    return f"nodes for {unplaced} of {workers.count} workers of {resources_text(workers.each)}" if unplaced else ""


def idle_gpus_warning(gpus_per_worker: float, cluster: Resources) -> str:
    """Returns what to say of GPUs that a training leaves idle; empty if there are none.

    >>> idle_gpus_warning(0, {"CPU": 8}), idle_gpus_warning(1, {"GPU": 4})
    ('', '')
    """
    gpus = cluster.get("GPU", 0)
    if gpus_per_worker or not gpus:
        return ""
    return (
        f"THIS TRAINS ON CPUS ALTHOUGH THE CLUSTER HAS {gpus:g} GPUS, which is tens of times slower. Stop it and give "
        f"--gpus-per-worker 1 --workers {gpus:g}, unless it is meant."
    )


def check_storage(folder: Folder) -> None:
    """Creates the folder, writes a file there and has all other nodes read it.

    Raises:
        JobError: the folder cannot be written, or some node does not see the file.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    name = f".probe-{uuid.uuid4().hex}"
    here = ray.get_runtime_context().get_node_id()
    try:
        folder.make().write(name, b"x")
    except OSError as error:
        raise JobError(
            f"--storage: {folder.path()} cannot be written ({error}). Make room, or choose another folder."
        ) from error
    try:
        others = [node for node in nodes if node != here]
        seen = ray.get([_can_read.options(scheduling_strategy=_at(node)).remote(folder, name) for node in others])
    finally:
        folder.remove(name)
    if not all(seen):
        blind = [node[:8] for node, sees in zip(others, seen, strict=True) if not sees]
        raise JobError(
            f"--storage {folder.uri} is not shared: {len(blind)} of {len(nodes)} nodes ({', '.join(blind[:5])}) do not "
            f"see what this one writes there. Give a folder on shared storage, or s3://…, gs://…."
        )


@ray.remote(num_cpus=0, max_retries=1)
def _can_read(folder: Folder, name: str) -> bool:
    return folder.has(name)


def _at(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def max_cluster_resources() -> Resources | None:
    """Returns the most that the cluster can ever have; None if nodes may still be added by hand."""
    now: Resources = ray.cluster_resources()
    scaled = autoscaler_limits()
    if scaled is not None:
        return {name: max(scaled.get(name, 0), now.get(name, 0)) for name in {*scaled, *now}}
    # A Ray that this process started for itself ends with it: nobody adds nodes to it.
    return now if started_by_this_process() and len(ray.nodes()) == 1 else None


def missing_resources(needed: Resources, given: Resources) -> Resources:
    """Returns how much of each resource is missing; empty if nothing is."""
    return {name: count - given.get(name, 0) for name, count in needed.items() if count > given.get(name, 0) + 1e-9}


def resources_text(resources: Resources) -> str:
    """Returns the resources as text, such as `2 CPU, 1 GPU`."""
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())
