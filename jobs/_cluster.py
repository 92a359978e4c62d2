"""Before any GPU time is spent: can the cluster give what is asked for, and is the storage one for all nodes."""

import logging
import time
import uuid
from collections.abc import Callable, Mapping

import ray
from ray._private import state, worker
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.runtime import JobError
from pipelines.files import Folder

log = logging.getLogger(__name__)

Resources = Mapping[str, float]


def wait_for_resources(wanted: Resources, what: str, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
    """Waits until the cluster has so much in all, saying what is missing.

    Args:
        wanted: of the smallest number of workers, together with the pipelines that feed them.
        what: what asks for it, in the words of the command line.
        timeout: minutes.

    Raises:
        JobError: the cluster and its autoscaler can never give it (said at once), or did not within the time.
    """
    most = _ever()
    if most is not None and (missing := lacking(wanted, most)):
        raise JobError(
            f"{what} need {resources_text(wanted)}, but of that this cluster can never give "
            f"{resources_text(missing)}. Ask for fewer workers, or for a larger cluster."
        )
    end, said = now() + 60 * timeout, -1e9
    while missing := lacking(wanted, ray.cluster_resources()):
        at = now()
        if at > end:
            raise JobError(
                f"{what} need {resources_text(wanted)}; after {timeout:g} minutes "
                f"{resources_text(missing)} are still missing. Start more nodes, ask for fewer workers, or wait longer "
                f"with --start-timeout."
            )
        if at - said > 30:
            log.info("waiting for nodes: %s missing, up to %.0f more minutes", resources_text(missing), (end - at) / 60)
            said = at
        time.sleep(1)


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
        seen = ray.get([_sees.options(scheduling_strategy=_at(node)).remote(folder, name) for node in others])
    finally:
        folder.remove(name)
    if not all(seen):
        blind = [node[:8] for node, there in zip(others, seen, strict=True) if not there]
        raise JobError(
            f"--storage {folder.uri} is not shared: {len(blind)} of {len(nodes)} nodes ({', '.join(blind[:5])}) do not "
            f"see what this one writes there. Give a folder on shared storage, or s3://…, gs://…."
        )


@ray.remote(num_cpus=0, max_retries=1)
def _sees(folder: Folder, name: str) -> bool:
    return folder.has(name)


def _at(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def _ever() -> Resources | None:
    """The most the cluster can ever have, or None where nodes may still be added by hand."""
    now: Resources = ray.cluster_resources()
    scaled = state.state.get_max_resources_from_cluster_config()
    if scaled is not None:
        return {name: max(scaled.get(name, 0), now.get(name, 0)) for name in {*scaled, *now}}
    # A Ray that this process started for itself ends with it: nobody adds nodes to it.
    own = worker._global_node
    return now if own is not None and own.head and len(ray.nodes()) == 1 else None


def lacking(wanted: Resources, given: Resources) -> Resources:
    return {name: count - given.get(name, 0) for name, count in wanted.items() if count > given.get(name, 0) + 1e-9}


def resources_text(resources: Resources) -> str:
    return ", ".join(f"{count:g} {name}" for name, count in resources.items())
