"""A training worker: builds the model, takes the steps, logs, writes checkpoints, validates."""

import logging
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode

from pipelines.clips.stream import Streaming
from pipelines.errors import FULL
from pipelines.safety.secrets import configure_logging
from pipelines.training.best import Best, read_best, write_best
from pipelines.training.checkpoints import SnapshotWrites, step_name, upload_async
from pipelines.training.description import FIRST_BATCH
from pipelines.training.learner import Learner
from pipelines.training.loader import StepBatch, StepLoader, Stopwatch
from pipelines.training.ranks import Ranks
from pipelines.training.ray_train import quiet
from pipelines.training.run_state import mark_stopped
from pipelines.training.score_keeper import ScoreKeeper
from pipelines.training.step_files import picture_of, save_step
from pipelines.training.step_log import StepLog
from pipelines.training.validation import ValidationResult, read_scores, write_score
from pipelines.training.worker_task import WorkerTask
from sgmg.host_memory import keep_freed_memory
from sgmg.train_step import StepReport

if TYPE_CHECKING:
    from pipelines.tracking.metric_log import MetricLog

log = logging.getLogger(__name__)

NOTICE_SECONDS = 2.0
"""Between two looks for nodes that will be taken away, or a step where that takes longer: notices may be of 30 s."""


def run_worker(task: WorkerTask) -> None:
    """Trains from the last checkpoint, or from the start, to the last step. Called on every worker alike.

    Raises:
        OSError: a file cannot be written. Ray Train starts the workers again, unless the disk is full.
    """
    configure_logging()
    quiet()
    if task.config.threads:
        torch.set_num_threads(task.config.threads)
    _, stopped = ray.get(task.progress.latest.remote())
    task.progress.mark_started.remote()
    if stopped:  # Ray Train restarts the workers after any error, even one that would occur again.
        return
    ranks = Ranks.of_ray_train()
    try:
        _run(task, ranks)
    except OSError as error:
        if error.errno in FULL:
            ray.get(
                task.progress.request_stop.remote(
                    f"{task.run.path()} takes no more files ({error}): make room there, or make it writable"
                )
            )
        raise


def _run(task: WorkerTask, ranks: Ranks) -> None:
    if ranks.device.type == "cpu":
        keep_freed_memory()
    learner = Learner(task, ranks)
    # Rank 0 asks whether the workers failed too often without progress; all do what it is told.
    if ranks.broadcast(ray.get(task.progress.resume_at.remote(learner.done)) if ranks.rank == 0 else ""):
        return
    metrics = _metric_log(task) if ranks.rank == 0 else None
    try:
        _Worker(learner, metrics).train()
    finally:
        if metrics is not None:
            metrics.close()


def _metric_log(task: WorkerTask) -> "MetricLog":
    from pipelines.tracking.metric_log import MetricLog  # imports MLflow, for seconds: other ranks need none

    return MetricLog(task.tracking, task.spool)


class _Worker:
    """The loop over the steps on one rank."""

    def __init__(self, learner: Learner, metrics: "MetricLog | None") -> None:
        self.learner, self.metrics, self.ranks = learner, metrics, learner.ranks
        self.task, self.config = learner.task, learner.config
        self.timer = Stopwatch()
        self.log = StepLog(learner, self.timer, metrics)
        self.scored_on = self.task.validation.scored_on if self.task.validation else ""
        scores = self.ranks.broadcast(read_scores(self.task.run, self.scored_on))
        self.scores = ScoreKeeper(self.config, learner.per_epoch, learner.steps, scores)
        self.writes = SnapshotWrites()
        self.notice = False
        # For nodes that will be taken away: when all looked last, after which step, and after which they look next.
        self.looked_at, self.last_look, self.next_look = time.monotonic(), learner.done, learner.done + 1

    def train(self) -> None:
        """Takes the steps from where the learner is to the last one, unless the run ends before."""
        learner = self.learner
        if self._score_is_due() and learner.done not in self.scores.scores:  # killed during validation
            self._validate()
        if self._stops_early():
            return
        # The workers keep their own cores; the pipelines take those that are left.
        world = self.ranks.world
        streaming = Streaming(self.config.cpus_per_decode, world, world * self.config.cpus_per_worker)
        loader = StepLoader(
            self.task.data, learner.tokenizer, self.ranks.rank, world, learner.done, learner.steps,
            self.config.prefetch, streaming, pin=self.ranks.device.type == "cuda",
        )  # fmt: skip
        steps = loader.steps()
        while (clips := self.timer.wait_for(steps)) is not None:
            if clips.step == 0 and self.metrics is not None:
                self.metrics.log_picture(FIRST_BATCH, picture_of(clips))
            report = self._learn(clips)
            if report is None and learner.left_out > self.config.skip_nonfinite:
                return
            learner.done += 1
            self.log.count(clips)
            if self._after_step(report):
                return

    def _learn(self, clips: StepBatch) -> StepReport | None:
        """Learns from a batch. Returns None, on all ranks, if a loss or the gradient is no number: nothing is learned.

        After more of these than the run may leave out, it is asked to stop.

        Raises:
            torch.OutOfMemoryError: the memory of the GPU is full. The run is asked to stop: it would be so again.
        """
        try:
            return self.learner.learn(clips)
        except FloatingPointError as error:
            self._leave_out(clips, error)
            return None
        except torch.OutOfMemoryError as error:
            path = save_step(self.task.run, clips, str(error), self.ranks.rank)
            reason = (
                f"step {clips.step} does not fit into the memory of a GPU: {str(error).splitlines()[0]} Its samples "
                f"are in {path}. Go on with --activation-checkpointing, or with --change clips_per_pass=1"
            )
            ray.get(self.task.progress.request_stop.remote(reason))
            raise

    def _leave_out(self, clips: StepBatch, error: FloatingPointError) -> None:
        """Keeps the samples of a step whose loss is no number, on all ranks; counts it, or asks the run to stop.

        Without an exception: Ray Train would start the workers again, and the same would come again.
        """
        most, learner = self.config.skip_nonfinite, self.learner
        learner.left_out += 1
        path = save_step(self.task.run, clips, str(error), self.ranks.rank)
        if self.ranks.rank:
            return
        if learner.left_out <= most:
            log.warning(
                "step %d is left out, %d of at most %d (--skip-nonfinite): %s Its samples are in %s",
                clips.step, learner.left_out, most, error, path,
            )  # fmt: skip
        else:
            remedy = "" if most else " --skip-nonfinite 10 leaves out up to ten such steps"
            ray.get(self.task.progress.request_stop.remote(f"{error} Its samples are in {path}.{remedy}"))

    def _after_step(self, report: StepReport | None) -> bool:
        """Logs, writes and scores what is due. Returns whether the run ends here, before its last step."""
        done, ended = self.learner.done, self.learner.done == self.learner.steps
        if done % self.config.log_every == 0 or ended:
            self.log.write(report)
        due = ended or done % self.learner.per_epoch == 0 or done % self.config.checkpoint_every == 0
        written = due or self._taken_away()
        if written:
            self._checkpoint()
        if not self._score_is_due():
            return False
        self._validate()  # after the checkpoint, which is written meanwhile
        return self._stops_early(written=written)

    def _taken_away(self) -> bool:
        """Returns whether Ray has just been told that a node of the run will be taken away (a spot machine).

        All ranks ask together, after a number of steps that rank 0 chooses: they wait for each other.
        """
        done, now = self.learner.done, time.monotonic()
        if self.notice or done < self.next_look:
            return False
        steps = NOTICE_SECONDS * (done - self.last_look) / max(now - self.looked_at, 1e-3)
        self.looked_at, self.last_look = now, done
        self.next_look = done + self.ranks.broadcast(max(1, int(steps)))
        self.notice = ray.train.get_preemption_info() is not None
        if self.notice and self.ranks.rank == 0:
            ray.get(self.task.progress.note_notice.remote())
            log.warning("a node will be taken away: a checkpoint is written after step %d", self.learner.done)
        return self.notice

    def _checkpoint(self) -> None:
        self.log.write_samples()
        upload = None
        if self.ranks.rank == 0:
            ended = self.writes.next()
            upload = partial(upload_async, self.learner.snapshot(), self.task.progress, ended)
        ray.train.report(
            {"step": self.learner.done},
            # The snapshot is in memory. Ray wants a folder all the same, and removes it.
            checkpoint=Checkpoint.from_directory(tempfile.mkdtemp(prefix="sgmg-")) if upload else None,
            checkpoint_dir_name=step_name(self.learner.done),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
        )

    def _score_is_due(self) -> bool:
        return self.task.validation is not None and self.scores.is_due(self.learner.done)

    def _stops_early(self, *, written: bool = True) -> bool:
        """Returns, on all ranks, whether scores have stopped getting better; notes it in the run's folder.

        Args:
            written: whether this step has a checkpoint; if not, one is written.
        """
        done = self.learner.done
        stops = self.ranks.broadcast(done < self.learner.steps and self.scores.has_stalled(done))
        if stops and not written:
            self._checkpoint()
        if stops and self.ranks.rank == 0:
            log.info("step %d: no new best in %d scores, the run ends", done, self.config.patience)
            self.writes.wait()
            mark_stopped(self.task.run, done, self.config.patience)
        return stops

    def _validate(self) -> None:
        started = time.perf_counter()
        result, averaged = self._scored(), None
        if self.learner.average is not None:
            with self.learner.average.in_place():
                averaged = self._scored()
        self.learner.model.train()
        if self.metrics is not None and result is not None:
            self._store_scores(self.metrics, result, averaged)
        self.timer.exclude(started)

    def _scored(self) -> ValidationResult | None:
        assert self.task.validation is not None
        learner, ranks = self.learner, self.ranks
        return self.task.validation.score(
            learner.model, learner.tokenizer, ranks.device, learner.precision, ranks.rank, ranks.world
        )

    def _store_scores(self, metrics: "MetricLog", result: ValidationResult, averaged: ValidationResult | None) -> None:
        """Logs the results of the weights and of their average, and keeps the better ones if they are the best."""
        done = self.learner.done
        metrics.log(done, result.metrics)
        for name, png in result.pictures(done).items():
            metrics.log_picture(name, png)
        if averaged is not None:
            metrics.log(done, {f"ema_{name}": value for name, value in averaged.metrics.items()})
        better = result if averaged is None or (averaged.score or 0.0) <= (result.score or 0.0) else averaged
        if better.score is None:
            log.warning("step %d: no score, the best checkpoint stays as it is: %s", done, result.text)
        else:
            log.info("step %d: %s%s", done, result.text, f"; averaged {averaged.text}" if averaged else "")
            before = read_best(self.task.run)
            if before is None or before.scored_on != self.scored_on or better.score > before.score:
                self._store_best(better.score, averaged=better is averaged)
        # Last: after a kill before this line, the step is scored again. "No score" is written too: it would come again.
        self.scores.scores[done] = better.score
        write_score(self.task.run, done, better, self.scored_on)

    def _store_best(self, score: float, *, averaged: bool) -> None:
        """Writes the current model to the run's storage as the best; the driver sends it to MLflow from there.

        Raises:
            OSError: it cannot be written. On a disk the run is asked to stop: a restart would meet the same one.
        """
        try:
            snapshot = self.learner.model_snapshot(averaged=averaged)
            write_best(self.task.run, snapshot, Best(self.learner.done, score, self.scored_on))
        except OSError as error:
            if self.task.run.is_local:
                ray.get(self.task.progress.request_stop.remote(str(error)))
            raise
