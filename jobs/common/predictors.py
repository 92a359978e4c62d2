"""Predictors as the flags describe them: their specification, their resources, and their errors."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError

from jobs.common.predictor_config import ModelConfig, PredictorConfig, actor_range
from pipelines.errors import JobError
from pipelines.inference.predictor_spec import PredictorSpec, checkpoint_sha256
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.stream import Resources
from pipelines.tracking.checkpoint_source import local_checkpoint, on_any_node
from sgmg.checkpoints import load, saved_tokenizer
from sgmg.config import Precision, PrecisionChoice
from sgmg.precision import PrecisionFound, find_precision
from sgmg.pretrained import ROBERTA
from sgmg.segmenter import asked_together
from sgmg.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

_ACTOR_BYTES = 4e9
"""Memory of a predictor on a CPU, with room for a large video."""


def predictor_spec(checkpoint: str, storage: str, config: ModelConfig, protocol: InferenceProtocol) -> PredictorSpec:
    """Fetches the checkpoint and returns the specification of predictors on CPUs; every node fetches it again.

    Does not need Ray, so that a wrong checkpoint is reported before anything is started.

    Raises:
        JobError: the checkpoint does not exist.
        FileNotFoundError: the tokenizer does not exist.
        ValueError: the checkpoint is damaged.
    """
    path = local_checkpoint(checkpoint, storage)
    # Reports a damaged checkpoint in one sentence; predictors would report it as a traceback of Ray.
    model = load(path).model.config
    return PredictorSpec(
        checkpoint=on_any_node(checkpoint, storage, path),
        checkpoint_sha256=checkpoint_sha256(path),
        tokenizer=_tokenizer(config.tokenizer, path).to_json(),
        protocol=protocol,
        precision="float32" if config.precision == "auto" else config.precision,
        model=model,
        threads=config.threads,
        gpu=False,
        sentences_together=asked_together(model, config.sentences_together),
    )


def resources_of(config: PredictorConfig) -> Resources:
    """Returns the resources of the predictors and their decode tasks. Ray must be running."""
    gpus = gpus_per_actor(config.gpus_per_actor)
    actors = actor_range(config.actors) if config.actors else actors_that_fit(gpus, ray.cluster_resources())
    return Resources(actors, gpus, config.cpus_per_actor, config.cpus_per_decode, config.stall_limit)


def actors_that_fit(gpus: float, cluster: Mapping[str, float]) -> tuple[int, int | None]:
    """Returns the fewest and most predictors that may use a whole cluster.

    With GPUs there is no limit but theirs: Ray Data starts predictors while frames wait for them, and asks an
    autoscaler for nodes.

    >>> actors_that_fit(0.5, {"GPU": 8, "CPU": 64}), actors_that_fit(0, {"CPU": 64, "memory": 40e9})
    ((1, None), (1, 10))

    Args:
        gpus: of each predictor.
        cluster: its resources: "CPU", and bytes of "memory".
    """
    if gpus:
        return 1, None
    most = min(cluster.get("CPU", 0) // 2, cluster.get("memory", 0) // _ACTOR_BYTES)
    return 1, max(2, int(most))


def with_resources(
    spec: PredictorSpec, config: ModelConfig, resources: Resources, begun_in: Precision | None = None
) -> PredictorSpec:
    """Returns the specification for predictors with these resources: on a GPU or not, and in which precision.

    Args:
        spec: of predictors on CPUs.
        config: the flags.
        resources: of the predictors.
        begun_in: the precision of the results that are there; "auto" keeps it. None: there are none.
    """
    gpu = resources.gpus_per_actor > 0
    if config.precision == "auto" and begun_in:
        precision = begun_in
    else:
        precision = _found_precision(config.precision, spec, resources).log()
    return replace(spec, gpu=gpu, precision=precision)


def _found_precision(chosen: PrecisionChoice, spec: PredictorSpec, resources: Resources) -> PrecisionFound:
    """Asks a machine that predictors run on; where there is only this one, this one.

    Raises:
        JobError: the cluster has no room for a predictor.
    """
    gpus = resources.gpus_per_actor
    arguments = (chosen, "cuda" if gpus else "cpu", spec.model)
    if chosen in ("float32", "float16") or (not gpus and len(ray.nodes()) == 1):
        return find_precision(*arguments)
    there = ray.remote(num_gpus=gpus, num_cpus=resources.cpus_per_actor)(find_precision)
    try:
        return ray.get(there.remote(*arguments), timeout=resources.stall_limit)
    except GetTimeoutError:
        raise JobError(
            f"For {resources.stall_limit:g} s the cluster had no place for a predictor of {gpus:g} GPUs and "
            f"{resources.cpus_per_actor:g} cores. Start nodes that have them, or ask for less: --gpus-per-actor, "
            f"--cpus-per-actor."
        ) from None


def _tokenizer(name: str | None, checkpoint: Path) -> Tokenizer:
    own = saved_tokenizer(checkpoint) if name is None else None
    return own or Tokenizer.from_pretrained(name or ROBERTA)


def gpus_per_actor(requested: float | None) -> float:
    """Returns the GPUs of each predictor: the requested number, else 0.5 if the cluster has GPUs, else 0.

    Two predictors share a GPU by default, so that one computes while the other waits for data. Ray must be running.
    """
    available = ray.cluster_resources().get("GPU", 0)
    if requested is None:
        return 0.5 if available else 0.0
    if requested > 0 and not available:
        _log.warning("--gpus-per-actor is %s, but the cluster has no GPU yet: waiting for one.", requested)
    return requested
