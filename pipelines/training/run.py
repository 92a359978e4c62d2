"""A training run from checks to the registered model; the body of the three training jobs."""

import logging
import threading
from collections.abc import Mapping, Sequence
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
from pipelines.runtime.lease import hold_lease
from pipelines.session import durable_folder, start_ray
from pipelines.tracking.client import MlflowException
from pipelines.tracking.metric_log import drain, spool_folder
from pipelines.tracking.mlflow_run import open_run, run_folder
from pipelines.tracking.reasons import reason_of
from pipelines.tracking.run_handle import RunHandle
from pipelines.training.checkpoints import latest_checkpoint, prune, repair_ray_state, step_of
from pipelines.training.config import TrainConfig
from pipelines.training.data import samples_text, train_data
from pipelines.training.description import description
from pipelines.training.failures import FailureNotes
from pipelines.training.preflight import check_cluster, check_same_data, prepare_start, record_data
from pipelines.training.progress import ProgressMonitor, create_progress_actor
from pipelines.training.ray_train import quiet, ray_train_environment
from pipelines.training.results import BestUploads, store_results
from pipelines.training.run_state import end_of, is_finished, is_trained, mark_finished, steps_of
from pipelines.training.settings import Change, continued, stored_config
from pipelines.training.train_loop import train_loop_per_worker
from pipelines.training.validation import Validation, validation_of
from pipelines.training.worker_task import WorkerTask

log = logging.getLogger(__name__)


def train(config: TrainConfig, kind: ClipKind, experiment: str) -> None:
    """Runs a training to its end: from the start, or from the last checkpoint of a run of that name.

    Raises:
        JobError: the run cannot start, or it ended early; the message says why and what to do.
    """
    config = _with_absolute_paths(config)
    run = run_folder(config.storage, experiment, config.run_name)
    before = stored_config(run)
    config, changes = continued(run, config)
    data = train_data(config, kind)
    validation = validation_of(config)
    steps = end_of(run, config, steps_of(config, data.plan(0).steps))
    if is_finished(run, steps):
        log.info("%s is finished: %d steps. Give another --name for a new run.", run.path(), steps)
        return
    check_same_data(run, data)
    start = prepare_start(config, run)
    with hold_lease(run, "give another --name") as taken:
        if stored_config(run) != before:
            raise JobError(f"{run.path()} was started by another process just now. Give the same command again.")
        start_ray(dashboard=True)
        quiet()
        check_cluster(config, run)
        stored = replace(config, change=())  # a change is made once
        if before is None:
            write_config(run, stored)  # from now on, no other settings
        prune(run, config.keep)
        repair_ray_state(run)
        record_data(run, data)
        tracking = _open_tracking(config, kind, experiment, data, validation, _tags_of(run, changes))
        write_config(run, stored)  # after MLflow has the tags of what changes: else they would never come
        log.info(
            "%s, %d steps of %d clips; lr %g x %d/%d", samples_text(data), steps, config.global_batch,
            config.lr, config.global_batch, config.lr_batch,
        )  # fmt: skip
        spool = spool_folder(config.storage, experiment, config.run_name)
        progress = create_progress_actor(config.max_failures)
        _train_and_store(WorkerTask(config, data, start, run, tracking, spool, progress, validation), taken)


def _train_and_store(task: WorkerTask, taken: threading.Event) -> None:
    """Trains to the end, and has MLflow keep the results; notes in MLflow how the run ended.

    Args:
        task: of the workers.
        taken: is set if another process has taken the run over.

    Raises:
        JobError: training ended before the last step.
    """
    config, run, tracking = task.config, task.run, task.tracking
    _describe(task)
    status = "FAILED"
    try:
        with BestUploads(run, tracking):
            _fit(task)
        if store_results(run, tracking, config.model_name):
            mark_finished(run, end_of(run, config, task.steps))
        status = "FINISHED"
    finally:
        if not taken.is_set():  # else they are the other's
            _drain(task)
            _describe(task)
            tracking.finish(status)


def _drain(task: WorkerTask) -> None:
    """Sends what rank 0 left for MLflow; what cannot be sent stays for the next start."""
    try:
        drain(task.tracking, task.spool, 60)
    except OSError as error:
        log.warning("what waits for MLflow at %s stays in %s: %s", task.tracking.uri, task.spool.path(), error)


def _describe(task: WorkerTask) -> None:
    """Sets the description of the MLflow run; without it, the run goes on."""
    try:
        task.tracking.describe(description(task.config, task.data, task.run, task.tracking))
    except (MlflowException, OSError) as error:
        log.warning("MLflow at %s takes no description of the run: %s", task.tracking.uri, reason_of(error))


def _tags_of(run: Folder, changes: Sequence[Change]) -> Mapping[str, str]:
    """Returns MLflow tags of the settings that change from here on, and logs them."""
    if not changes:
        return {}
    name = latest_checkpoint(run)
    step, text = (step_of(name) if name else 0), ", ".join(map(str, changes))
    log.warning("after step %d the run goes on with %s", step, text)
    return {f"change.after_step_{step:08d}": text}


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    return replace(
        config,
        storage=durable_folder(config.storage, "--storage").uri,
        data=tuple(map(_absolute, config.data)),
        weights=tuple(map(_absolute_share, config.weights)),
        valid=tuple(map(_absolute, config.valid)),
    )


def _absolute(path: str) -> str:
    return path if is_uri(path) else str(Path(path).expanduser().resolve())


def _absolute_share(text: str) -> str:
    """Returns `folder:share` with the folder as `_absolute` has it."""
    folder, separator, share = text.rpartition(":")
    return f"{_absolute(folder)}{separator}{share}" if separator else _absolute(text)


def _open_tracking(
    config: TrainConfig,
    kind: ClipKind,
    experiment: str,
    data: TrainData,
    validation: Validation | None,
    tags: Mapping[str, str],
) -> RunHandle:
    """Opens the MLflow run, and logs its config and data.

    Raises:
        JobError: MLflow cannot be used.
    """
    nodes = sum(node["Alive"] for node in ray.nodes())
    tracking = open_run(experiment, config.run_name, config.storage, config, {"kind": kind, **tags}, nodes=nodes)
    try:
        tracking.log_config(config)
        tracking.log_datasets([part.folder for part in data.parts], "training")
        if validation is not None:
            tracking.log_datasets([Folder(path) for path in config.valid], "validation")
    except (MlflowException, OSError) as error:
        raise JobError(
            f"MLflow at {tracking.uri} took the run, but not its config and data: {reason_of(error)}. See that its "
            f"artifacts can be written, then give the same command again."
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
            failure_config=FailureConfig(max_failures=-1),  # `ProgressActor` counts those without progress
            checkpoint_config=CheckpointConfig(num_to_keep=config.keep),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[FailureNotes(task.progress)],
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
    end = end_of(run, task.config, task.steps)
    if not ended and not stopped and not monitor.abort_reason and not is_trained(run, end):
        ended = f"its workers ended before step {end}"
    if reason := monitor.abort_reason or stopped or ended:
        newest = latest_checkpoint(run)
        rest = (
            f"The last checkpoint is {newest} in {run.path()}; the same command goes on from it."
            if newest
            else f"{run.path()} has no checkpoint yet; the same command starts anew."
        )
        raise JobError(f"Training ended early: {reason.rstrip('.')}. {rest}") from cause
