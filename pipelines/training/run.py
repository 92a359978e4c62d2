"""A training run from checks to the registered model; the body of the three training jobs."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import ray
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from pipelines.clips.recipe_choice import ClipKind
from pipelines.clips.stream import TrainData
from pipelines.config_io import write_config
from pipelines.errors import JobError, root_cause
from pipelines.files import Folder, is_uri
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.client import MlflowException
from pipelines.tracking.metric_log import MetricLog, drain, spool_folder
from pipelines.tracking.mlflow_run import RunHandle, open_run, run_folder
from pipelines.tracking.models import register
from pipelines.training.checkpoints import fetch_checkpoint, latest_checkpoint, prune, repair_ray_state
from pipelines.training.config import TrainConfig
from pipelines.training.data import samples_text, train_data
from pipelines.training.preflight import check_cluster, check_same_data, check_same_settings, prepare_start, record_data
from pipelines.training.progress import ProgressMonitor, create_progress_actor
from pipelines.training.ray_train import quiet, ray_train_environment, worker_environment
from pipelines.training.run_state import is_finished, is_trained, mark_finished, steps_of
from pipelines.training.train_loop import train_loop_per_worker
from pipelines.training.validation import Validation, validation_of
from pipelines.training.worker_task import WorkerTask

log = logging.getLogger(__name__)

_UPLOAD_SECONDS = 3600.0
"""Longest wait for the upload of the last checkpoints to MLflow, over a slow link. An MLflow that is down is not waited
for."""


def train(config: TrainConfig, kind: ClipKind, experiment: str) -> None:
    """Runs a training to its end: from the start, or from the last checkpoint of a run of that name.

    Raises:
        JobError: the run cannot start, or it ended early; the message says why and what to do.
    """
    config = _with_absolute_paths(config)
    run = run_folder(config.storage, experiment, config.run_name)
    data = train_data(config, kind)
    validation = validation_of(config)
    check_same_settings(run, config)
    check_same_data(run, data)
    steps = steps_of(config, data.plan(0).steps)
    if is_finished(run, steps):
        log.info("%s is finished: %d steps. Give another --name for a new run.", run.path(), steps)
        return
    start = prepare_start(config, run)
    start_ray(dashboard=True)
    quiet()
    check_cluster(config, run)
    prune(run, config.keep)
    repair_ray_state(run)
    write_config(run, config)
    record_data(run, data)
    tracking = _open_tracking(config, kind, experiment, data, validation)
    log.info(
        "%s, %d steps of %d clips; lr %g x %d/%d", samples_text(data), steps, config.global_batch,
        config.lr, config.global_batch, config.lr_batch,
    )  # fmt: skip
    spool = spool_folder(config.storage, experiment, config.run_name)
    task = WorkerTask(config, data, start, run, tracking, spool, create_progress_actor(), validation)
    status = "FAILED"
    try:
        _fit(task)
        if _store_results(task):
            mark_finished(run, steps)
        status = "FINISHED"
    finally:
        drain(tracking, spool, 60)
        tracking.finish(status)


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    return replace(
        config,
        storage=durable_folder(config.storage, "--storage").uri,
        data=tuple(map(_absolute, config.data)),
        valid=tuple(map(_absolute, config.valid)),
    )


def _absolute(path: str) -> str:
    return path if is_uri(path) else str(Path(path).expanduser().resolve())


def _open_tracking(
    config: TrainConfig, kind: ClipKind, experiment: str, data: TrainData, validation: Validation | None
) -> RunHandle:
    """Opens the MLflow run, and logs its config and data.

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
    return TorchTrainer(
        train_loop_per_worker,
        # By reference: the controller of Ray Train need not import what only workers need.
        train_loop_config={"task": ray.put(task)},
        torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=least if least == most else (least, most),
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=dict(config.worker_resources),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=parent,
            storage_filesystem=task.run.filesystem,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep),
            worker_runtime_env={"env_vars": worker_environment()},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _fit(task: WorkerTask) -> None:
    """Trains to the last step, and shows progress.

    Raises:
        JobError: training ended before the last step; the message says why, and that the same command continues.
    """
    run = task.run
    ended, cause = "", None
    with (
        ProgressMonitor(task.progress, task.config.min_resources, task.config.start_timeout) as monitor,
        ray_train_environment(),
    ):
        try:
            _trainer(task).fit()
        except TrainingFailedError as error:
            ended, cause = root_cause(error), error
        except (SystemExit, KeyboardInterrupt) as error:  # Ray Train's answer to an interrupt, ours or the user's
            ended, cause = "it was interrupted", error
    _, stopped = ray.get(task.progress.latest.remote())
    if not ended and not stopped and not monitor.abort_reason and not is_trained(run, task.steps):
        ended = f"its workers ended before step {task.steps}"
    if reason := monitor.abort_reason or stopped or ended:
        raise JobError(
            f"Training ended early: {reason.rstrip('.')}. The last checkpoint is {latest_checkpoint(run) or 'none'} in "
            f"{run.path()}; the same command goes on from it."
        ) from cause


def _store_results(task: WorkerTask) -> bool:
    """Uploads the last checkpoint to MLflow, and registers the best one as a model version.

    Returns whether MLflow has both. If it is down, the next start of the finished run tries again.
    """
    name = latest_checkpoint(task.run)
    assert name is not None
    with (
        tempfile.TemporaryDirectory(prefix="sgmg-last-") as staging,
        MetricLog(task.tracking, task.spool, system_seconds=None) as metrics,
    ):
        last = fetch_checkpoint(task.run, name, Path(staging))
        metrics.log_checkpoint("last", task.steps, last)
        if task.validation is None:
            metrics.log_checkpoint("best", task.steps, last)
        log.info("sending the checkpoints to MLflow at %s", task.tracking.uri)
        uploaded = metrics.flush(_UPLOAD_SECONDS)
    try:
        held = task.tracking.client().get_run(task.tracking.run_id).data.tags.get("checkpoint.best")
        if not uploaded or held is None:
            raise JobError("the checkpoints were not uploaded")
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
