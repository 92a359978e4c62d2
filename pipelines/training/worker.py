"""A training worker: builds the model, takes the steps, logs, writes checkpoints, validates."""

import errno
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.torch import get_device
from torch.nn.parallel import DistributedDataParallel

from pipelines.clips.stream import Streaming
from pipelines.tracking.metric_log import MetricLog
from pipelines.training.checkpoints import BEST, Snapshot, fetch_checkpoint, latest_checkpoint, step_name, upload_async
from pipelines.training.initial_model import start_model
from pipelines.training.loader import StepBatch, StepLoader, Stopwatch
from pipelines.training.progress import ProgressReport
from pipelines.training.ray_train import quiet
from pipelines.training.schedule import lr_factor
from pipelines.training.step_files import picture_of, save_step
from pipelines.training.validation import ValidationResult, read_scores, write_score
from pipelines.training.worker_task import WorkerTask
from sgmg.checkpoints import load
from sgmg.config import Precision, SgMgConfig
from sgmg.host_memory import keep_freed_memory
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import LearningRates, optimizer_for
from sgmg.precision import find_precision
from sgmg.tokenizer import Tokenizer
from sgmg.train_step import StepReport, TrainStep

log = logging.getLogger(__name__)

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def run_worker(task: WorkerTask) -> None:
    """Trains from the last checkpoint, or from the start, to the last step. Called on every worker alike.

    Raises:
        OSError: a file cannot be written. Ray Train starts the workers again, unless the disk is full.
    """
    logging.basicConfig(level=logging.INFO)
    quiet()
    if task.config.threads:
        torch.set_num_threads(task.config.threads)
    _, stopped = ray.get(task.progress.latest.remote())
    task.progress.mark_started.remote()
    if stopped:  # Ray Train restarts the workers after any error, even one that would occur again.
        return
    try:
        _Worker(task).run()
    except OSError as error:
        if error.errno in _FULL:
            ray.get(
                task.progress.request_stop.remote(f"{task.run.path()} takes no more files ({error}): make room there")
            )
        raise


@dataclass
class _Interval:
    """Counts since the last logged line."""

    clips: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class _Worker:
    def __init__(self, task: WorkerTask) -> None:
        context = ray.train.get_context()
        self.task, self.config = task, task.config
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        if self.device.type == "cpu":
            keep_freed_memory()
        self.tokenizer = Tokenizer.from_json(task.start.tokenizer)
        self.steps, self.per_epoch = task.steps, task.data.plan(0).steps
        self.done, state = 0, None
        with tempfile.TemporaryDirectory(prefix="sgmg-resume-") as staging:
            newest = self._broadcast(latest_checkpoint(task.run))
            if newest is None:
                model = start_model(self.config, task.start.init() if task.start.init else None)
            else:
                checkpoint = load(fetch_checkpoint(task.run, newest, Path(staging)), preset=None)
                model, state = checkpoint.model.train(), checkpoint.training()
                self.done = state["step"]
                log.info("rank %d of %d goes on after step %d (%s)", self.rank, self.world, self.done, newest)
        self.precision: Precision = self._broadcast(self._found_precision(model.config, state))
        self.model = self._setup_model(model)
        self.optimizer = optimizer_for(self.model, self._rates())
        self.step = TrainStep(
            self._wrap_ddp(Objective(self.model)),
            self.optimizer,
            device=self.device,
            precision=self.precision,
            max_grad_norm=self.config.max_grad_norm,
        )
        if state is not None:
            self.step.load_state_dict(state)
        self.scores: dict[int, float] = self._broadcast(read_scores(task.run))
        self.interval, self.timer = _Interval(), Stopwatch()
        self.samples: list[dict[str, Any]] = []
        self.metrics: MetricLog | None = None

    def run(self) -> None:
        if self.rank == 0:
            self.metrics = MetricLog(self.task.tracking, self.task.spool)
        try:
            self._train()
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def _train(self) -> None:
        if self._score_is_due() and self.done not in self.scores:  # killed during validation
            self._validate()
        # The workers keep their own cores; the pipelines take those that are left.
        streaming = Streaming(self.config.cpus_per_decode, self.world, self.world * self.config.cpus_per_worker)
        loader = StepLoader(
            self.task.data, self.tokenizer, self.rank, self.world, self.done, self.steps, self.config.prefetch,
            streaming, pin=self.device.type == "cuda",
        )  # fmt: skip
        steps = loader.steps()
        while (clips := self.timer.wait_for(steps)) is not None:
            if clips.step != self.done:
                raise AssertionError(f"step {clips.step} came where {self.done} was due")
            if clips.step == 0 and self.metrics is not None:
                self.metrics.log_picture("first_batch.png", picture_of(clips))
            self._set_rates()
            try:
                report = self.step(clips.micro_batches, clips.step)
            except FloatingPointError as error:
                # Raised on all ranks. They end without an exception: Ray Train would restart them.
                path = save_step(self.task.run, clips, str(error), self.rank)
                if self.rank == 0:
                    ray.get(self.task.progress.request_stop.remote(f"{error} Its samples are in {path}."))
                return
            self.done += 1
            self._count(clips)
            self._after_step(report)

    def _after_step(self, report: StepReport) -> None:
        ended = self.done == self.steps
        if self.done % self.config.log_every == 0 or ended:
            self._log(report)
        if ended or self.done % self.per_epoch == 0 or self.done % self.config.checkpoint_every == 0:
            self._checkpoint()
        if self._score_is_due():  # after the checkpoint, which is written meanwhile
            self._validate()

    def _score_is_due(self) -> bool:
        if self.task.validation is None or not self.done:
            return False
        epoch, rest = divmod(self.done, self.per_epoch)
        return self.done == self.steps or (not rest and epoch % self.config.valid_every == 0)

    def _checkpoint(self) -> None:
        self._write_samples()
        snapshot = None
        if self.rank == 0:
            training = {"step": self.done, "precision": self.precision, **self.step.state_dict()}
            snapshot = Snapshot.of(self.model, training, self._saved_tokenizer(), self._metadata())
        ray.train.report(
            {"step": self.done},
            # The snapshot is in memory. Ray wants a folder all the same, and removes it.
            checkpoint=Checkpoint.from_directory(tempfile.mkdtemp(prefix="sgmg-")) if snapshot else None,
            checkpoint_dir_name=step_name(self.done),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=partial(upload_async, snapshot, self.task.progress) if snapshot else None,
        )

    def _validate(self) -> None:
        assert self.task.validation is not None
        started = time.perf_counter()
        result = self.task.validation.score(
            self.model, self.tokenizer, self.device, self.precision, self.rank, self.world
        )
        self.model.train()
        if self.metrics is not None and result is not None:
            self._store_scores(self.metrics, result)
        self.timer.exclude(started)

    def _store_scores(self, metrics: MetricLog, result: ValidationResult) -> None:
        epoch, score = -(-self.done // self.per_epoch), result.figures[result.main]
        metrics.log(self.done, {f"valid/{name}": value for name, value in result.figures.items()})
        for name, png in result.pictures.items():
            metrics.log_picture(f"valid/epoch_{epoch:03d}/{name}.png", png)
        log.info("after epoch %d: %s %.4f", epoch, result.main, score)
        # Scores of later steps are from before a restart; those steps are trained again.
        if score > max((one for step, one in self.scores.items() if step < self.done), default=-1.0):
            try:
                self._store_best(metrics)
            except OSError as error:  # a restart would meet the same disk
                ray.get(self.task.progress.request_stop.remote(str(error)))
                raise
        # Last: after a kill before this line, the step is scored again.
        self.scores[self.done] = score
        write_score(self.task.run, self.done, result)

    def _store_best(self, metrics: MetricLog) -> None:
        """Writes the current model to MLflow as the best, and to the run's folder if that is on a disk."""
        snapshot = Snapshot.of(self.model, {"step": self.done}, self._saved_tokenizer(), self._metadata())
        with tempfile.TemporaryDirectory(prefix="sgmg-best-") as staging:
            best = Path(self.task.run.path() if self.task.run.is_local else staging) / BEST
            snapshot.write(best)
            metrics.log_checkpoint("best", self.done, best)

    def _log(self, report: StepReport) -> None:
        seconds, waited = self.timer.lap()
        counted = torch.tensor(
            [self.interval.clips, sum(self.interval.dropped.values()), waited, seconds], dtype=torch.float64
        )
        if self.world > 1:
            counted = counted.to(self.device)
            dist.all_reduce(counted)
        clips, dropped, waited, seconds = counted.tolist()
        self.interval = _Interval()
        if self.metrics is None:
            return
        speed, waiting = clips * self.world / seconds, waited / seconds
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {f"lr/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        values |= {"gradient_norm": report.gradient_norm, "clips_per_second": speed, "data_wait": waiting}
        values |= {"dropped": dropped, "epoch": self.done / self.per_epoch, "workers": self.world}
        values |= {"skipped": float(report.skipped)} if self.precision == "float16" else {}
        if self.device.type == "cuda":
            values["gpu_memory_GB"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        self.metrics.log(self.done, values)
        latest = ProgressReport(self.done, self.steps, report.losses["total"], speed, waiting, self.world)
        self.task.progress.report.remote(latest)

    def _count(self, clips: StepBatch) -> None:
        self.interval.clips += clips.clips
        self.interval.dropped.update(slot.dropped for slot in clips.slots if slot.dropped)
        for slot in clips.slots:
            if slot.dropped:
                log.warning("step %d: %s is left out: %s", clips.step, slot.sample, slot.dropped)
        if self.config.log_samples:
            self.samples += [
                {"step": clips.step, "lane": slot.lane, "sample": slot.sample, "dropped": slot.dropped}
                for slot in clips.slots
            ]

    def _write_samples(self) -> None:
        """Writes the samples of the steps since the last file. A restart that repeats the steps replaces it."""
        if self.samples:
            lines = "".join(f"{json.dumps(line)}\n" for line in self.samples)
            name = f"{self.samples[0]['step']:08d}-{self.done:08d}-rank{self.rank:04d}of{self.world:04d}.jsonl"
            self.task.run.write(f"samples/{name}", lines.encode())
            self.samples = []

    def _rates(self) -> LearningRates:
        config = self.config
        return LearningRates(config.lr, config.backbone_lr, config.text_lr, config.lr).scaled(config.lr_scale)

    def _set_rates(self) -> None:
        factor = lr_factor(self.config, self.done, self.steps, self.per_epoch)
        rates = self._rates().scaled(factor)
        for group in self.optimizer.param_groups:
            group["lr"] = getattr(rates, group["name"])

    def _found_precision(self, model: SgMgConfig, state: Mapping[str, Any] | None) -> Precision:
        """Returns the precision the run began with, else that which suits the device; said by rank 0, who decides."""
        if state is not None and "precision" in state:
            return state["precision"]
        found = find_precision(self.config.precision, self.device, model)
        return found.log() if self.rank == 0 else found.precision

    def _setup_model(self, model: SgMg) -> SgMg:
        if self.config.freeze_text:
            model.text.freeze(keep=8192)
        return model.to(self.device).train()

    def _wrap_ddp(self, objective: Objective) -> torch.nn.Module:
        if self.world == 1:
            return objective
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            objective, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def _broadcast(self, value: T) -> T:
        """Returns the value of rank 0: all start from the same checkpoint, even if one still sees another."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def _saved_tokenizer(self) -> Tokenizer | None:
        return self.tokenizer if self.task.start.own_tokenizer else None

    def _metadata(self) -> Mapping[str, Any]:
        datasets = [f"{part.manifest.dataset}/{part.manifest.split}" for part in self.task.data.parts]
        return {"run": self.config.run_name, "recipe": self.config.recipe, "step": self.done, "data": datasets,
                "mlflow_run": self.task.tracking.run_id, "precision": self.precision}  # fmt: skip
