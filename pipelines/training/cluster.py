"""Before any GPU time is spent: can the cluster give what is asked for, and is the storage one for all nodes."""

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
    """The fewest that a run takes, and what each needs on one node."""

    count: int
    each: Resources

    def unplaced(self) -> int:
        """Those for which the nodes there are have no place, even with nothing else on them."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = [(name, count) for name, count in self.each.items() if count]
        places = sum(min(int(node.get(name, 0) / count + 1e-9) for name, count in needs) for node in nodes if needs)
        return max(0, self.count - places) if needs else 0


def wait_for_resources(
    wanted: Resources, workers: Workers, what: str, timeout: float, now: Callable[[], float] = time.monotonic
) -> None:
    """Waits until the cluster has so much in all, and a place for each worker, saying what is missing.

    Args:
        wanted: of the smallest number of workers, together with the pipelines that feed them.
        workers: the same workers, one by one.
        what: what asks for it, in the words of the command line.
        timeout: minutes.

    Raises:
        JobError: the cluster and its autoscaler can never give it (said at once), or did not within the time.
    """
    most = max_cluster_resources()
    if most is not None and (missing := missing_resources(wanted, most)):
        raise JobError(
            f"{what} need {resources_text(wanted)}, but of that this cluster can never give "
            f"{resources_text(missing)}. Ask for fewer workers, or for a larger cluster."
        )
    end, said = now() + 60 * timeout, -1e9
    while missing := _missing(wanted, workers):
        at = now()
        if at > end:
            raise JobError(
                f"{what} need {resources_text(wanted)}; after {timeout:g} minutes "
                f"{missing} are still missing. Start more nodes, ask for fewer workers, or wait longer "
                f"with --start-timeout."
            )
        if at - said > 30:
            log.info("waiting for nodes: %s missing, up to %.0f more minutes", missing, (end - at) / 60)
            said = at
        time.sleep(1)


def _missing(wanted: Resources, workers: Workers) -> str:
    """What the cluster lacks now; empty if nothing."""
    if missing := missing_resources(wanted, ray.cluster_resources()):
        return resources_text(missing)
    unplaced = workers.unplaced()
    return f"nodes for {unplaced} of {workers.count} workers of {resources_text(workers.each)}" if unplaced else ""


def check_storage(folder: Folder) -> None:
    """Makes the folder, writes there on this node and reads on all others.

    Raises:
        JobError: the folder cannot be written, or some node sees another one.
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
        blind = [node[:8] for node, there in zip(others, seen, strict=True) if not there]
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


def missing_resources(wanted: Resources, given: Resources) -> Resources:
    return {name: count - given.get(name, 0) for name, count in wanted.items() if count > given.get(name, 0) + 1e-9}


def resources_text(resources: Resources) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())
