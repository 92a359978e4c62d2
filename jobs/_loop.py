"""What the three training jobs share: check everything, open the MLflow run, train on Ray, keep the best."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from jobs._checkpoints import BEST, fetched, mend_ray_state, newest_checkpoint
from jobs._cluster import check_storage, wait_for_resources
from jobs._progress import Watch, new_ear
from jobs._start import check_start, model_config
from jobs._train_data import own_tokenizer, train_data
from jobs._validation import validation_of
from jobs._worker import Task, work
from jobs.checkpoint_source import local_checkpoint
from jobs.recipes import ClipKind, TrainConfig
from jobs.runtime import CONFIG, Exit, JobError, durable_folder, from_plain, start_ray, write_config
from jobs.tracking import open_run, run_folder
from jobs.tracking_log import MetricLog, catch_up, spool_folder
from jobs.tracking_models import register
from pipelines.files import Folder
from sgmg.checkpoints import load
from sgmg.tokenizer import Tokenizer

log = logging.getLogger(__name__)

DRIVEN = frozenset(
    {"storage", "name", "workers", "gpus_per_worker", "cpus_per_worker", "cpus_per_decode", "threads", "start_timeout",
     "max_failures", "prefetch", "checkpoint_every", "keep", "log_every", "log_samples", "max_steps", "model_name",
     "valid_every"}
)  # fmt: skip
"""What may change when a run goes on: how it is run, not what it computes."""
_ATTEMPT_SECONDS = 60
"""Of one of Ray Train's tries to place the workers; our own limit counts over all of them."""


def train(config: TrainConfig, kind: ClipKind, experiment: str) -> Exit:
    """A whole training run, from where it stands to its end.

    Raises:
        JobError: it cannot start, or it ended early; the message says why and what to do.
    """
    storage = durable_folder(config.storage, "--storage")
    config = replace(config, storage=storage.uri, data=tuple(map(_absolute, config.data)),
                     valid=tuple(map(_absolute, config.valid)))  # fmt: skip
    run = run_folder(config.storage, experiment, config.run_name)
    data = train_data(config, kind)
    validation = validation_of(config)
    _check_same_run(run, config)
    steps = _steps(config, data.plan(0).steps)
    if _finished(run, steps):
        log.info("%s is finished: %d steps. Give --name for a new run, or more --epochs.", run.path(), steps)
        return Exit.CLEAN
    init = "" if newest_checkpoint(run) else _local(config)
    tokenizer, own = _tokenizer(config, run, init)
    check_start(config, init)
    start_ray()
    workers = config.worker_range
    wait_for_resources(_wanted(config), f"--workers {config.workers}", config.start_timeout)
    check_storage(run.make())
    mend_ray_state(run)
    write_config(run, config)
    tracking = open_run(
        experiment,
        config.run_name,
        config.storage,
        config,
        {"kind": kind},
        nodes=sum(node["Alive"] for node in ray.nodes()),
    )
    tracking.log_config(config)
    tracking.log_datasets([part.folder for part in data.parts], "training")
    log.info(
        "%d samples, %d steps of %d clips; lr %g x %d/%d", data.plan(0).samples, steps, config.global_batch,
        config.rate, config.global_batch, config.rate_batch,
    )  # fmt: skip
    ear = new_ear()
    spool = spool_folder(config.storage, experiment, config.run_name)
    task = Task(config, data, tokenizer.to_json(), own, init, run, tracking, spool, ear, validation)
    status = "FAILED"
    try:
        _fit(task, workers)
        _keep(task, spool)
        status = "FINISHED"
    finally:
        catch_up(tracking, spool, 60)
        tracking.finish(status)
    return Exit.CLEAN


def _fit(task: Task, workers: tuple[int, int]) -> None:
    config = task.config
    least, most = workers
    # Ray Train asks for workers again and again; how long it may, the watch says.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(_ATTEMPT_SECONDS)
    resources = {"CPU": config.cpus_per_worker} | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})
    parent, _, name = task.run.path().rpartition("/")
    scheme = task.run.uri.partition("://")[0] + "://" if "://" in task.run.uri else ""
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=least if least == most else (least, most),
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=f"{scheme}{parent}",
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep),
            worker_runtime_env={"env_vars": _worker_environment()},
        ),
    )
    with Watch(task.ear, _wanted(config), config.start_timeout) as watch:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            reason = watch.gave_up or _innermost(error)
            raise JobError(
                f"Training ended early: {reason}. The last checkpoint is {newest_checkpoint(task.run) or 'none'} in "
                f"{task.run.path()}; the same command goes on from it."
            ) from error
        if watch.gave_up:
            raise JobError(f"Training ended early: {watch.gave_up}")
    _, stopped = ray.get(task.ear.heard.remote())
    if stopped:
        raise JobError(f"Training stopped: {stopped}")
    if not _finished(task.run, task.steps):
        raise JobError(
            f"Training ended after {newest_checkpoint(task.run) or 'no checkpoint'}, before its {task.steps} steps. "
            f"The same command goes on from there."
        )


def _keep(task: Task, spool: Path) -> None:
    """The last checkpoint, and the best where there are scores, as artifacts; the better one as a model version."""
    name = newest_checkpoint(task.run)
    assert name is not None
    last = fetched(task.run, name, spool)
    best = Path(task.run.path()) / BEST
    with MetricLog(task.tracking, spool, system_seconds=None) as metrics:
        metrics.log_checkpoint("last", task.steps, last)
        if task.validation is None:
            metrics.log_checkpoint("best", task.steps, last)
        metrics.flush(120)
    held = task.tracking.client().get_run(task.tracking.run_id).data.tags.get("checkpoint.best")
    if held is None:
        log.warning("the best checkpoint did not reach MLflow: it is not registered, but lies in %s", best)
        return
    version = register(task.tracking, held, task.config.model_name)
    log.info(
        "models:/%s/%s is the best of this run; mlflow:%s too", task.config.model_name, version, task.tracking.run_id
    )


def _tokenizer(config: TrainConfig, run: Folder, init: str) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it is to be saved with the model: not where it is roberta-base's."""
    newest = newest_checkpoint(run)
    if newest or init:
        carried = load(
            run.folder(newest).path() if newest and "://" not in run.uri else init or config.tokenizer
        ).tokenizer
        if carried is not None:
            return carried, True
    if config.model == "tiny":
        return own_tokenizer(config.data, model_config(config).text.vocabulary), True
    return Tokenizer.from_pretrained(config.tokenizer), False


def _check_same_run(run: Folder, config: TrainConfig) -> None:
    """A name goes on only with what it was started with.

    Raises:
        JobError: another value of anything that decides what is computed.
    """
    if not run.has(CONFIG):
        return
    before = from_plain(TrainConfig, json.loads(run.read(CONFIG)))
    changed = {
        field: (getattr(before, field), getattr(config, field))
        for field in TrainConfig.__slots__
        if field not in DRIVEN and getattr(before, field) != getattr(config, field)
    }
    if changed and newest_checkpoint(run):
        said = ", ".join(f"--{name.replace('_', '-')} {old} → {new}" for name, (old, new) in changed.items())
        raise JobError(
            f"The run {config.run_name!r} in {run.path()} was started with other settings: {said}. Give the old ones "
            f"to go on, or another --name to start anew."
        )


def _wanted(config: TrainConfig) -> Mapping[str, float]:
    """What the smallest number of workers needs, with a core for the pipelines that feed them."""
    least = config.worker_range[0]
    gpus = {"GPU": least * config.gpus_per_worker} if config.gpus_per_worker else {}
    return {"CPU": least * config.cpus_per_worker + config.cpus_per_decode, **gpus}


def _worker_environment() -> dict[str, str]:
    """What workers on other nodes need to know of this one's environment."""
    passed = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
              "MLFLOW_S3_ENDPOINT_URL", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "HF_HOME")  # fmt: skip
    return {name: os.environ[name] for name in passed if name in os.environ}


def _local(config: TrainConfig) -> str:
    return str(local_checkpoint(config.init, config.storage)) if config.init else ""


def _steps(config: TrainConfig, per_epoch: int) -> int:
    whole = config.epochs * per_epoch
    return min(whole, config.max_steps) if config.max_steps else whole


def _finished(run: Folder, steps: int) -> bool:
    newest = newest_checkpoint(run)
    return newest is not None and int(newest.rpartition("_")[2]) >= steps


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def _innermost(error: BaseException) -> str:
    """What went wrong in a worker, in one line."""
    failures: Any = getattr(error, "worker_failures", None)
    causes = list(failures.values()) if failures else [error]
    return "; ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}".strip().splitlines()[-1] for cause in causes))
