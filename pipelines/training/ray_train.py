"""Settings of Ray Train for a run: environment variables, log levels, and every private name of Ray that we use."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import state, worker
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution import context

_SWITCHES = {
    # Of one of its tries to place the workers; it tries again for ever, and our watch says how long it may.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    # It warns workers of nodes that are going to be taken away. We make no use of it, and it starts with an error line.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
              "MLFLOW_S3_ENDPOINT_URL", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "HF_HOME")  # fmt: skip


@contextmanager
def ray_train_environment() -> Iterator[None]:
    """The environment that Ray Train reads in this process, and afterwards what was there before it.

    What the user has set wins. Ray Train also takes over Ctrl-C, for good: here until the block ends.
    """
    # By its address, a helper of Ray Train that looks for a dead run finds which of a machine's several Rays is meant.
    wanted = _SWITCHES | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    constants.ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    on_interrupt = signal.getsignal(signal.SIGINT)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)


def worker_environment() -> dict[str, str]:
    """What workers on other nodes need to know of this one's environment."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def quiet() -> None:
    """Leaves the terminal to our own lines and to what is wrong; Ray writes the rest into its own files."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the terminal's; Ray's own files have handlers of another kind
            handler.setLevel(logging.WARNING)
    # Of the first it says that bars are off, of the second, which is named by its file, every report.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    logging.getLogger(context.__file__).setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def autoscaler_limits() -> Mapping[str, float] | None:
    """Returns the resources of the cluster at its configured maximum size; None if no autoscaler is configured."""
    return state.state.get_max_resources_from_cluster_config()


def started_by_this_process() -> bool:
    """Returns whether this process started the head node of the Ray it is connected to."""
    own = worker._global_node
    return own is not None and own.head
