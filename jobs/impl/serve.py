"""The work of jobs/serve.py."""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from jobs.common.predictor_config import actor_range
from jobs.common.predictors import predictor_spec, with_resources
from jobs.serve import ServeConfig
from pipelines.errors import Exit, JobError
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.inference.stream import Resources
from pipelines.serve.application import APPLICATION, Replicas, application_of
from pipelines.serve.settings import MINUTE, Limits, ServeSettings, is_loopback
from pipelines.session import start_ray

TOKEN = "SGMG_TOKEN"
"""Environment variable of the token."""
_GB, _MB = 10**9, 10**6
_CLIPS_GB, _CLIPS_GB_OF_GPU = 2.0, 16.0
_WAIT = 1800.0
"""Seconds to wait for a node that has room for a replica."""
_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)

_log = logging.getLogger(__name__)


def serve_until_stopped(config: ServeConfig) -> Exit:
    """Starts the service, prints its address, and ends it with the process.

    Raises:
        JobError: other machines may reach it without a token, or the port is taken.
    """
    if not _token(config) and not is_loopback(config.host):
        raise JobError(
            f"--host {config.host} lets other machines in. Set {TOKEN}, which clients then have to send, or leave out "
            f"--host."
        )
    spec = _spec(config)  # reports a wrong checkpoint before anything is started
    _check_port(config.host, config.port)
    start_ray(config.num_cpus)
    application = _application(config, spec)
    serve.start(http_options=HTTPOptions(host=config.host, port=config.port), logging_config=_QUIET)
    try:
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
        print(f"page: http://{config.host}:{config.port}/\nAPI:  http://{config.host}:{config.port}/docs", flush=True)
        print("Ctrl-C ends it.", flush=True)
        while True:
            signal.pause()
    finally:
        serve.shutdown()


def application(arguments: Mapping[str, Any]) -> serve.Application:
    """Returns the application for Ray Serve's own configuration (cluster/kuberay/rayservice.yaml).

    Args:
        arguments: flags of jobs/serve.py by their names, with underscores. Host and port are set in Ray Serve's
            configuration; the token comes from the environment.

    Raises:
        JobError: there is no token, or no checkpoint.
    """
    config = ServeConfig(**arguments)
    if not _token(config):
        raise JobError(f"Set {TOKEN} in the environment of the nodes: other machines reach this service.")
    return _application(config, _spec(config))


def _spec(config: ServeConfig) -> PredictorSpec:
    return predictor_spec(config.checkpoint, config.storage, config, config.settings.protocol(config.short_side))


def _application(config: ServeConfig, spec: PredictorSpec) -> serve.Application:
    """Returns the application. Ray must be running."""
    least, most = actor_range(config.replicas, "--replicas")
    gpus = config.gpus_per_replica
    available = ray.cluster_resources().get("GPU", 0)
    if gpus is None:
        gpus = 1.0 if available else 0.0
    if gpus and not available:
        _log.warning("--gpus-per-replica is %s, but the cluster has no GPU yet: waiting for one.", gpus)
    clips = config.clips_gb if config.clips_gb is not None else _CLIPS_GB_OF_GPU if gpus else _CLIPS_GB
    resources = Resources((least, most), gpus, config.cpus_per_replica, cpus_per_decode=0.0, stall_limit=_WAIT)
    replicas = Replicas(least, most, gpus, config.cpus_per_replica, int(clips * _GB))
    settings = ServeSettings(
        limits=_limits(config),
        keep=config.keep * MINUTE,
        keep_bytes=int(config.keep_gb * _GB),
        windows=config.settings,
        token=_token(config),
        live=config.live,
        at_once=replicas.at_once,
    )
    return application_of(with_resources(spec, config, resources), settings, replicas)


def _limits(config: ServeConfig) -> Limits:
    return Limits(
        bytes=int(config.max_mb * _MB),
        seconds=config.max_seconds,
        pixels=config.max_pixels,
        frames=config.max_frames,
        sentences=config.max_sentences,
        requests_per_minute=config.requests_per_minute,
        running=config.running,
        waiting=config.waiting,
    )


def _token(config: ServeConfig) -> str:
    return config.token or os.environ.get(TOKEN, "")


def _check_port(host: str, port: int) -> None:
    """Checks that nobody listens at an address yet.

    Raises:
        JobError: somebody does, or the address is not one of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise JobError(f"{host}:{port} cannot be listened at ({error.strerror}). Give another --port.") from error
