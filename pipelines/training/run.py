"""What the three training jobs share: check everything, open the MLflow run, train on Ray, keep the best."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from pipelines.clips.stream import TrainData
from pipelines.config_io import write_config
from pipelines.errors import Exit, JobError
from pipelines.files import Folder, is_uri
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.checkpoint_source import local_checkpoint, on_any_node
from pipelines.tracking.client import MlflowException
from pipelines.tracking.metric_log import MetricLog, drain, spool_folder
from pipelines.tracking.mlflow_run import RunHandle, open_run, run_folder
from pipelines.tracking.models import register
from pipelines.training.checkpoints import fetch_checkpoint, latest_checkpoint, prune, repair_ray_state
from pipelines.training.cluster import Workers, check_storage, wait_for_resources
from pipelines.training.config import ClipKind, TrainConfig
from pipelines.training.data import samples_told, train_data
from pipelines.training.preflight import check_same_data, check_same_run, check_start, note_data
from pipelines.training.progress import ProgressMonitor, create_progress_actor
from pipelines.training.ray_train import quiet, ray_train_environment, worker_environment
from pipelines.training.run_state import is_finished, is_trained, mark_finished, steps_of, tokenizer_of
from pipelines.training.validation import Validation, validation_of
from pipelines.training.worker import work
from pipelines.training.worker_task import WorkerTask

log = logging.getLogger(__name__)

_ARRIVAL = 3600.0
"""Seconds that the last checkpoints may take to MLflow, over a slow link; one that is away is not waited for."""


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
    check_same_run(run, config)
    check_same_data(run, data)
    steps = steps_of(config, data.plan(0).steps)
    if is_finished(run, steps):
        log.info("%s is finished: %d steps. Give another --name for a new run.", run.path(), steps)
        return Exit.CLEAN
    under_way = latest_checkpoint(run) is not None
    init = local_checkpoint(config.init, config.storage) if config.init and not under_way else None
    tokenizer, own = tokenizer_of(config, run, init)
    if not under_way:
        check_start(config, init)
    start_ray()
    quiet()
    workers = Workers(config.worker_range[0], _each(config))
    wait_for_resources(_wanted(config), workers, f"--workers {config.workers}", config.start_timeout)
    check_storage(run)
    prune(run, config.keep)
    repair_ray_state(run)
    write_config(run, config)
    note_data(run, data)
    tracking = _tracked(config, kind, experiment, data, validation)
    log.info(
        "%s, %d steps of %d clips; lr %g x %d/%d", samples_told(data), steps, config.global_batch,
        config.lr, config.global_batch, config.lr_batch,
    )  # fmt: skip
    ear = create_progress_actor()
    spool = spool_folder(config.storage, experiment, config.run_name)
    start = on_any_node(config.init, config.storage, init) if init else None
    task = WorkerTask(config, data, tokenizer.to_json(), own, start, run, tracking, spool, ear, validation)
    status = "FAILED"
    try:
        _fit(task)
        if _keep(task, spool):
            mark_finished(run, steps)
        status = "FINISHED"
    finally:
        drain(tracking, spool, 60)
        tracking.finish(status)
    return Exit.CLEAN


def _tracked(
    config: TrainConfig, kind: ClipKind, experiment: str, data: TrainData, validation: Validation | None
) -> RunHandle:
    """The MLflow run, with what is known of it before the first step.

    Raises:
        JobError: MLflow cannot be used.
    """
    nodes = sum(node["Alive"] for node in ray.nodes())
    tracking = open_run(experiment, config.run_name, config.storage, config, {"kind": kind}, nodes=nodes)
    try:
        tracking.log_config(config)
        tracking.log_datasets([part.folder for part in data.parts], "training")
        if validation is not None:
            tracking.log_datasets([Folder(path) for path in config.valid], "validation")
    except (MlflowException, OSError) as error:
        raise JobError(
            f"MLflow at {tracking.uri} took the run, but not its config and data: {error}. See that its artifacts can "
            f"be written, then give the same command again."
        ) from error
    return tracking


def _trainer(task: WorkerTask) -> TorchTrainer:
    config = task.config
    least, most = config.worker_range
    parent, _, name = task.run.path().rpartition("/")
    scheme = "" if task.run.is_local else f"{task.run.scheme}://"
    return TorchTrainer(
        work,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=least if least == most else (least, most),
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=dict(_each(config)),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=f"{scheme}{parent}",
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep),
            worker_runtime_env={"env_vars": worker_environment()},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _fit(task: WorkerTask) -> None:
    """Trains to the last step, while the watch shows how far it is.

    Raises:
        JobError: it ended before; the message says why, and that the same command goes on.
    """
    run = task.run
    ended, cause = "", None
    with ProgressMonitor(task.ear, _wanted(task.config), task.config.start_timeout) as watch, ray_train_environment():
        try:
            _trainer(task).fit()
        except TrainingFailedError as error:
            ended, cause = root_cause(error), error
        except (SystemExit, KeyboardInterrupt) as error:  # Ray Train's answer to an interrupt, ours or the user's
            ended, cause = "it was interrupted", error
    _, stopped = ray.get(task.ear.heard.remote())
    if not ended and not stopped and not watch.abort_reason and not is_trained(run, task.steps):
        ended = f"its workers ended before step {task.steps}"
    if reason := watch.abort_reason or stopped or ended:
        raise JobError(
            f"Training ended early: {reason.rstrip('.')}. The last checkpoint is {latest_checkpoint(run) or 'none'} in "
            f"{run.path()}; the same command goes on from it."
        ) from cause


def _keep(task: WorkerTask, spool: Path) -> bool:
    """The last checkpoint, and the best where there are scores, as artifacts; the better one as a model version.

    Whether MLflow has them; where it is away, a start of the finished run tries again.
    """
    name = latest_checkpoint(task.run)
    assert name is not None
    with (
        tempfile.TemporaryDirectory(prefix="sgmg-last-") as aside,
        MetricLog(task.tracking, spool, system_seconds=None) as metrics,
    ):
        last = fetch_checkpoint(task.run, name, Path(aside))
        metrics.log_checkpoint("last", task.steps, last)
        if task.validation is None:
            metrics.log_checkpoint("best", task.steps, last)
        log.info("sending the checkpoints to MLflow at %s", task.tracking.uri)
        arrived = metrics.flush(_ARRIVAL)
    try:
        held = task.tracking.client().get_run(task.tracking.run_id).data.tags.get("checkpoint.best")
        if not arrived or held is None:
            raise JobError("the checkpoints did not arrive")
        version = register(task.tracking, held, task.config.model_name)
    except (MlflowException, JobError) as error:
        log.warning(
            "Training is done, but MLflow at %s cannot keep its result: %s. It lies in %s; the same command tries "
            "again.", task.tracking.uri, error, task.run.path(),
        )  # fmt: skip
        return False
    log.info(
        "models:/%s/%s is the best of this run; mlflow:%s too", task.config.model_name, version, task.tracking.run_id
    )
    return True


def _wanted(config: TrainConfig) -> Mapping[str, float]:
    """What the smallest number of workers needs, with a core for the pipelines that feed them."""
    wanted = {name: config.worker_range[0] * count for name, count in _each(config).items()}
    return wanted | {"CPU": wanted["CPU"] + config.cpus_per_decode}


def _each(config: TrainConfig) -> Mapping[str, float]:
    """What one worker needs."""
    return {"CPU": config.cpus_per_worker} | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})


def _absolute(path: str) -> str:
    return path if is_uri(path) else str(Path(path).expanduser().resolve())


def root_cause(error: BaseException) -> str:
    """What went wrong in a worker, in one line."""
    failures: Any = getattr(error, "worker_failures", None)
    causes = list(failures.values()) if failures else [error]
    return "; ".join(dict.fromkeys(f"{type(cause).__name__}: {cause}".strip().splitlines()[-1] for cause in causes))
