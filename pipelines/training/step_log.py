"""The log of a run's steps on one rank: numbers for MLflow and the progress bar, and the samples that were seen."""

import json
import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from pipelines.training.learner import Learner
from pipelines.training.loader import StepBatch, Stopwatch
from pipelines.training.progress import ProgressReport
from sgmg.train_step import StepReport

if TYPE_CHECKING:
    from pipelines.tracking.metric_log import MetricLog

log = logging.getLogger(__name__)


class StepLog:
    """Counts what is seen between two logged lines, and logs it on rank 0; all ranks call it alike.

    Args:
        learner: whose steps they are.
        timer: clock of the steps.
        metrics: log of the MLflow run; None on all ranks but the first.
    """

    def __init__(self, learner: Learner, timer: Stopwatch, metrics: "MetricLog | None") -> None:
        self._learner, self._timer, self._metrics = learner, timer, metrics
        self._clips, self._dropped = 0, Counter[str]()
        self._samples: list[dict[str, Any]] = []

    def count(self, clips: StepBatch) -> None:
        """Counts the clips of a step; warns of those that are left out."""
        self._clips += clips.clips
        self._dropped.update(slot.dropped for slot in clips.slots if slot.dropped)
        for slot in clips.slots:
            if slot.dropped:
                log.warning("step %d: %s is left out: %s", clips.step, slot.sample, slot.dropped)
        if self._learner.config.log_samples:
            self._samples += [
                {"step": clips.step, "lane": slot.lane, "sample": slot.sample, "dropped": slot.dropped}
                for slot in clips.slots
            ]

    def write(self, report: StepReport | None) -> None:
        """Logs what was counted since the last call, and the last step; None if it was left out."""
        learner, ranks = self._learner, self._learner.ranks
        seconds, waited = self._timer.lap()
        clips, dropped, waited, seconds = ranks.sums(self._clips, self._dropped.total(), waited, seconds)
        self._clips, self._dropped = 0, Counter[str]()
        if self._metrics is None:
            return
        speed, waiting = clips * ranks.world / seconds, waited / seconds
        values = {f"lr/{group['name']}": group["lr"] for group in learner.optimizer.param_groups}
        values |= {"clips_per_second": speed, "data_wait": waiting, "dropped": dropped}
        values |= {
            "epoch": learner.done / learner.per_epoch,
            "workers": ranks.world,
            "steps_left_out": learner.left_out,
        }
        if report is not None:
            values |= {f"loss/{name}": value for name, value in report.losses.items()}
            values |= {"gradient_norm": report.gradient_norm}
            values |= {"skipped": float(report.skipped)} if learner.precision == "float16" else {}
        if ranks.device.type == "cuda":
            values["gpu_memory_GB"] = torch.cuda.max_memory_allocated(ranks.device) / 1e9
        self._metrics.log(learner.done, values)
        loss = report.losses["total"] if report is not None else math.nan
        latest = ProgressReport(learner.done, learner.steps, loss, speed, waiting, ranks.world)
        learner.task.progress.report.remote(latest)

    def write_samples(self) -> None:
        """Writes the samples of the steps since the last file. A restart that repeats the steps replaces it."""
        if self._samples:
            learner, ranks = self._learner, self._learner.ranks
            lines = "".join(f"{json.dumps(line)}\n" for line in self._samples)
            steps = f"{self._samples[0]['step']:08d}-{learner.done:08d}"
            learner.task.run.write(f"samples/{steps}-rank{ranks.rank:04d}of{ranks.world:04d}.jsonl", lines.encode())
            self._samples = []
