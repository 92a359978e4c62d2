"""The application of Ray Serve: a front on some cores, and replicas of the model that grow with the load.

front (HTTP, decoding, files) → replicas (a fair queue, the model, encoded clips). A window that loses its replica goes
to another one; a front that is lost is started again, without the videos that it kept.
"""

from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.serve.api import MODEL, api_of
from pipelines.serve.front import Front
from pipelines.serve.replica import ModelReplica
from pipelines.serve.settings import ServeSettings

APPLICATION = "sgmg"
"""Name of the application."""
_FRONT = "Front"
_ANY = 10_000
"""Requests that the front takes at once: its own limits refuse what is too much, with a sentence."""
_TARGET = 4
"""Windows that each replica has at once, when there are as many replicas as are wanted."""
_HEALTH = 5.0
"""Seconds between two looks at a replica."""
_GRACE = 20.0
"""Seconds that a replica has for what it is at, when it is to end."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of the model.

    Attributes:
        least, most: how many there are, by load.
        gpus, cpus: of each.
        clip_bytes: of the encoded clips that each keeps on its device.
    """

    least: int
    most: int
    gpus: float
    cpus: float
    clip_bytes: int

    @property
    def at_once(self) -> int:
        """Windows of one request that replicas may work on at the same time: all of them, and one each that waits."""
        return 2 * self.most


class FrontDeployment:
    """The deployment of the front: an application of ASGI, made where it runs.

    Args:
        spec: of the predictor.
        settings: of the service.
        handle: of the replicas.
    """

    def __init__(self, spec: PredictorSpec, settings: ServeSettings, handle: DeploymentHandle) -> None:
        self._front = Front(spec, settings, handle)

    def __serve_build_asgi_app__(self) -> Any:
        """Returns the application of ASGI; Ray Serve calls this."""
        return api_of(self._front)


def application_of(spec: PredictorSpec, settings: ServeSettings, replicas: Replicas) -> serve.Application:
    """Returns the application, to be run by `serve.run` or by Ray Serve's own configuration.

    Args:
        spec: of the predictors in the replicas.
        settings: of the service.
        replicas: how many there are, and of what size.
    """
    model = serve.deployment(
        name=MODEL,
        max_ongoing_requests=settings.limits.running * settings.at_once,
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.least,
            initial_replicas=replicas.least,
            max_replicas=replicas.most,
            target_ongoing_requests=_TARGET,
        ),
        ray_actor_options={"num_gpus": replicas.gpus, "num_cpus": replicas.cpus},
        health_check_period_s=_HEALTH,
        graceful_shutdown_timeout_s=_GRACE,
    )(ModelReplica).bind(spec, replicas.clip_bytes)
    front = serve.deployment(
        name=_FRONT,
        max_ongoing_requests=_ANY,
        ray_actor_options={"num_cpus": 0.5},
        health_check_period_s=_HEALTH,
        graceful_shutdown_timeout_s=_GRACE,
    )(serve.ingress()(FrontDeployment))
    return front.bind(spec, settings, model)
