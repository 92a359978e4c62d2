"""What every training worker does: build the model, walk the steps, log, checkpoint, validate."""

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
from pipelines.training.scores import scores_of, write_score
from pipelines.training.step_files import picture_of, save_step
from pipelines.training.validation import ValidationResult
from pipelines.training.worker_task import WorkerTask
from sgmg.checkpoints import load
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import LearningRates, optimizer_for
from sgmg.tokenizer import Tokenizer
from sgmg.train_step import StepReport, TrainStep

log = logging.getLogger(__name__)

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def work(told: dict[str, Any]) -> None:
    """The function Ray Train runs in every worker."""
    task: WorkerTask = told["task"]
    logging.basicConfig(level=logging.INFO)
    quiet()
    if task.config.threads:
        torch.set_num_threads(task.config.threads)
    _, stopped = ray.get(task.ear.heard.remote())
    task.ear.begin.remote()
    if stopped:  # Ray Train starts the workers again after any error, also after one that would only come back.
        return
    try:
        _Worker(task).run()
    except OSError as error:
        if error.errno in _FULL:
            ray.get(task.ear.stop.remote(f"{task.run.path()} takes no more files ({error}): make room there"))
        raise


@dataclass
class _Since:
    """What happened since the last logged line."""

    clips: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class _Worker:
    def __init__(self, task: WorkerTask) -> None:
        context = ray.train.get_context()
        self.task, self.config = task, task.config
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        self.tokenizer = Tokenizer.from_json(task.tokenizer)
        self.steps, self.per_epoch = task.steps, task.data.plan(0).steps
        self.done, state = 0, None
        with tempfile.TemporaryDirectory(prefix="sgmg-resume-") as aside:
            found = self._agreed(latest_checkpoint(task.run))
            if found is None:
                model = start_model(self.config, task.init() if task.init else None)
            else:
                checkpoint = load(fetch_checkpoint(task.run, found, Path(aside)), preset=None)
                model, state = checkpoint.model.train(), checkpoint.training()
                self.done = state["step"]
                log.info("rank %d of %d goes on after step %d (%s)", self.rank, self.world, self.done, found)
        self.model = self._prepared(model)
        self.optimizer = optimizer_for(self.model, self._rates())
        self.step = TrainStep(
            self._shared(Objective(self.model)),
            self.optimizer,
            device=self.device,
            precision=self.config.precision,
            max_grad_norm=self.config.max_grad_norm,
        )
        if state is not None:
            self.step.load_state_dict(state)
        self.scores: dict[int, float] = self._agreed(scores_of(task.run))
        self.since, self.watch = _Since(), Stopwatch()
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
        if self._score_is_due() and self.done not in self.scores:  # it was killed while it scored
            self._validate()
        # Every worker keeps a core's share for itself; pipelines take what is left.
        streaming = Streaming(self.config.cpus_per_decode, self.world, self.world * self.config.cpus_per_worker)
        loading = StepLoader(
            self.task.data, self.tokenizer, self.rank, self.world, self.done, self.steps, self.config.prefetch,
            streaming, pin=self.device.type == "cuda",
        )  # fmt: skip
        steps = loading.steps()
        while (clips := self.watch.wait_for(steps)) is not None:
            if clips.step != self.done:
                raise AssertionError(f"step {clips.step} came where {self.done} was due")
            if clips.step == 0 and self.metrics is not None:
                self.metrics.log_picture("first_batch.png", picture_of(clips))
            self._set_rates()
            try:
                report = self.step(clips.micro_batches, clips.step)
            except FloatingPointError as error:
                # All ranks are here: each saves what it fed, and all end without an exception, so that nobody restarts.
                where = save_step(self.task.run, clips, str(error), self.rank)
                if self.rank == 0:
                    ray.get(self.task.ear.stop.remote(f"{error} Its samples are in {where}."))
                return
            self.done += 1
            self._note(clips)
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
            training = {"step": self.done, **self.step.state_dict()}
            snapshot = Snapshot.of(self.model, training, self._kept_tokenizer(), self._notes())
        ray.train.report(
            {"step": self.done},
            # What is written lies in memory, not in a folder; Ray wants a folder all the same, and removes it.
            checkpoint=Checkpoint.from_directory(tempfile.mkdtemp(prefix="sgmg-")) if snapshot else None,
            checkpoint_dir_name=step_name(self.done),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=partial(upload_async, snapshot, self.task.ear) if snapshot else None,
        )

    def _validate(self) -> None:
        assert self.task.validation is not None
        started = time.perf_counter()
        found = self.task.validation.score(self.model, self.tokenizer, self.device, self.rank, self.world)
        self.model.train()
        if self.metrics is not None and found is not None:
            self._keep_scores(self.metrics, found)
        self.watch.leave_out(started)

    def _keep_scores(self, metrics: MetricLog, found: ValidationResult) -> None:
        epoch, score = -(-self.done // self.per_epoch), found.figures[found.main]
        metrics.log(self.done, {f"valid/{name}": value for name, value in found.figures.items()})
        for name, png in found.pictures.items():
            metrics.log_picture(f"valid/epoch_{epoch:03d}/{name}.png", png)
        log.info("after epoch %d: %s %.4f", epoch, found.main, score)
        # Scores of steps after this one are of a stretch that is gone over again.
        if score > max((one for step, one in self.scores.items() if step < self.done), default=-1.0):
            try:
                self._keep_best(metrics)
            except OSError as error:  # where it is written, here, trying again is no use
                ray.get(self.task.ear.stop.remote(str(error)))
                raise
        # Last, so that a kill before it means to score again.
        self.scores[self.done] = score
        write_score(self.task.run, self.done, found)

    def _keep_best(self, metrics: MetricLog) -> None:
        """The model as it is in MLflow, and in the folder of the run where that is on a disk."""
        snapshot = Snapshot.of(self.model, {"step": self.done}, self._kept_tokenizer(), self._notes())
        with tempfile.TemporaryDirectory(prefix="sgmg-best-") as aside:
            best = Path(self.task.run.path() if self.task.run.is_local else aside) / BEST
            snapshot.write(best)
            metrics.log_checkpoint("best", self.done, best)

    def _log(self, report: StepReport) -> None:
        seconds, waited = self.watch.look()
        counted = torch.tensor(
            [self.since.clips, sum(self.since.dropped.values()), waited, seconds], dtype=torch.float64
        )
        if self.world > 1:
            counted = counted.to(self.device)
            dist.all_reduce(counted)
        clips, dropped, waited, seconds = counted.tolist()
        self.since = _Since()
        if self.metrics is None:
            return
        speed, waiting = clips * self.world / seconds, waited / seconds
        values = {f"loss/{name}": value for name, value in report.losses.items()}
        values |= {f"lr/{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        values |= {"gradient_norm": report.gradient_norm, "clips_per_second": speed, "data_wait": waiting}
        values |= {"dropped": dropped, "epoch": self.done / self.per_epoch, "workers": self.world}
        values |= {"skipped": float(report.skipped)} if self.config.precision == "float16" else {}
        if self.device.type == "cuda":
            values["gpu_memory_GB"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        self.metrics.log(self.done, values)
        beat = ProgressReport(self.done, self.steps, report.losses["total"], speed, waiting, self.world)
        self.task.ear.tell.remote(beat)

    def _note(self, clips: StepBatch) -> None:
        self.since.clips += clips.clips
        self.since.dropped.update(slot.dropped for slot in clips.slots if slot.dropped)
        for slot in clips.slots:
            if slot.dropped:
                log.warning("step %d: %s is left out: %s", clips.step, slot.sample, slot.dropped)
        if self.config.log_samples:
            self.samples += [
                {"step": clips.step, "lane": slot.lane, "sample": slot.sample, "dropped": slot.dropped}
                for slot in clips.slots
            ]

    def _write_samples(self) -> None:
        """Under a name that a repeated stretch of the run writes again, so that nothing is listed twice."""
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

    def _prepared(self, model: SgMg) -> SgMg:
        if self.config.freeze_text:
            model.text.freeze(keep=8192)
        if self.config.compile:
            model.backbone.compile(dynamic=True)
        return model.to(self.device).train()

    def _shared(self, objective: Objective) -> torch.nn.Module:
        if self.world == 1:
            return objective
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=devices, forward_sync_buffers=False)

    def _agreed(self, found: T) -> T:
        """What rank 0 found: all start from the same checkpoint, even where one would still see another."""
        if self.world == 1:
            return found
        word = [found]
        dist.broadcast_object_list(word, src=0)
        return word[0]

    def _kept_tokenizer(self) -> Tokenizer | None:
        return self.tokenizer if self.task.own_tokenizer else None

    def _notes(self) -> Mapping[str, Any]:
        datasets = [f"{part.manifest.dataset}/{part.manifest.split}" for part in self.task.data.parts]
        return {"run": self.config.run_name, "recipe": self.config.recipe, "step": self.done, "data": datasets,
                "mlflow_run": self.task.tracking.run_id}  # fmt: skip
