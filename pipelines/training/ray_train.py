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
    # Seconds of one attempt to place the workers. Ray Train tries for ever; `ProgressMonitor` sets the limit.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
}


@contextmanager
def ray_train_environment() -> Iterator[None]:
    """Sets the environment variables of Ray Train for the block; variables that the user has set win.

    Also restores the handler of Ctrl-C at the end, which Ray Train replaces for good.
    """
    # Of a machine's several Rays, a helper of Ray Train that looks for dead runs finds the right one by its address.
    variables = _SWITCHES | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    constants.ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    added = {name: value for name, value in variables.items() if name not in os.environ}
    on_interrupt = signal.getsignal(signal.SIGINT)
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)


def quiet() -> None:
    """Keeps Ray's and MLflow's informational lines off the terminal; Ray writes them to its own files."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the terminal's; those of Ray's files are of another type
            handler.setLevel(logging.WARNING)
    # The first logs that bars are off, the second, named by its file, every report.
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
