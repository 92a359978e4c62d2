"""The model in training on one rank: restored or begun, taking steps, copied for checkpoints."""

import logging
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from pipelines.training.checkpoints import Snapshot, fetch_checkpoint, latest_checkpoint
from pipelines.training.initial_model import start_model
from pipelines.training.loader import StepBatch
from pipelines.training.ranks import Ranks
from pipelines.training.schedule import lr_factor
from pipelines.training.worker_task import WorkerTask
from sgmg.checkpoints import load
from sgmg.config import Precision, SgMgConfig
from sgmg.model import SgMg
from sgmg.objective import Objective
from sgmg.optim import LearningRates, optimizer_for
from sgmg.precision import find_precision
from sgmg.tokenizer import Tokenizer
from sgmg.train_step import StepReport, TrainStep
from sgmg.weight_average import WeightAverage
from sgmg.weights import with_config

log = logging.getLogger(__name__)


class Learner:
    """The model, its optimiser and the average of its weights, at a step of the run; the same on every rank.

    It goes on from the run's last checkpoint, or begins with the run's first weights.

    Attributes:
        done: optimiser steps of the run so far.
        left_out: those of them that nothing was learned in, as a loss or the gradient was no number.
        per_epoch, steps: optimiser steps of an epoch and of the whole run.
    """

    def __init__(self, task: WorkerTask, ranks: Ranks) -> None:
        self.task, self.config, self.ranks = task, task.config, ranks
        self.tokenizer = Tokenizer.from_json(task.start.tokenizer)
        self.steps, self.per_epoch = task.steps, task.data.plan(0).steps
        model, state, averaged = self._restored()
        self.done: int = state.get("step", 0)
        self.left_out: int = state.get("left_out", 0)
        self.precision: Precision = ranks.broadcast(self._found_precision(model.config, state))
        if self.config.freeze_text:
            model.text.freeze(keep=8192)
        self.model = model.to(ranks.device).train()
        self.average = WeightAverage(self.model, self.config.ema) if self.config.ema else None
        self.optimizer = optimizer_for(self.model, self._rates())
        self._step = TrainStep(
            self._in_ddp(Objective(self.model)),
            self.optimizer,
            device=ranks.device,
            precision=self.precision,
            max_grad_norm=self.config.max_grad_norm,
        )
        if state:
            self._step.load_state_dict(state)
            if self.average is not None:
                self.average.load_state_dict(averaged, state["averaged_steps"])

    def learn(self, clips: StepBatch) -> StepReport:
        """Takes one optimiser step.

        Raises:
            FloatingPointError: a loss or the gradient is no number; on all ranks, and nothing is learned.
            torch.OutOfMemoryError: the memory of the GPU is full.
        """
        if clips.step != self.done:
            raise AssertionError(f"step {clips.step} came where {self.done} was due")
        rates = self._rates().scaled(lr_factor(self.config, self.done, self.steps, self.per_epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = getattr(rates, group["name"])
        report = self._step(clips.micro_batches, clips.step)
        if self.average is not None:
            self.average.update()
        return report

    def snapshot(self) -> Snapshot:
        """Copies all that a checkpoint needs to go on from here."""
        training = {"step": self.done, "precision": self.precision, "left_out": self.left_out}
        training |= self._step.state_dict()
        if self.average is not None:
            training["averaged_steps"] = self.average.steps
        return Snapshot.of(self.model, training, self._saved_tokenizer(), self._notes(), self.average)

    def model_snapshot(self, *, averaged: bool) -> Snapshot:
        """Copies the model alone, as it is now or with the average of its weights."""
        notes = {**self._notes(), "weights": "averaged" if averaged else "as learned"}
        with self.average.in_place() if self.average is not None and averaged else nullcontext():
            return Snapshot.of(self.model, {"step": self.done}, self._saved_tokenizer(), notes)

    def _restored(self) -> tuple[SgMg, Mapping[str, Any], Mapping[str, torch.Tensor]]:
        """Returns the model, the training state and the averaged weights; the last two empty where there are none."""
        task = self.task
        # All start from the same checkpoint, even if one still sees another.
        newest = self.ranks.broadcast(latest_checkpoint(task.run))
        if newest is None:
            return start_model(self.config, task.start.init() if task.start.init else None), {}, {}
        with tempfile.TemporaryDirectory(prefix="sgmg-resume-") as staging:
            checkpoint = load(fetch_checkpoint(task.run, newest, Path(staging)), preset=None)
            recompute = self.config.activation_checkpointing
            config = replace(checkpoint.model.config, activation_checkpointing=recompute)
            model = with_config(checkpoint.model, config)
            state = checkpoint.training()
            averaged = checkpoint.averaged() if self.config.ema else {}
        step = state["step"]
        log.info("rank %d of %d goes on after step %d (%s)", self.ranks.rank, self.ranks.world, step, newest)
        return model, state, averaged

    def _found_precision(self, model: SgMgConfig, state: Mapping[str, Any]) -> Precision:
        """Returns --precision; with `auto` that of the run so far, else that which suits the device of rank 0."""
        if self.config.precision == "auto" and "precision" in state:
            return state["precision"]
        found = find_precision(self.config.precision, self.ranks.device, model)
        return found.log() if self.ranks.rank == 0 else found.precision

    def _rates(self) -> LearningRates:
        config = self.config
        return LearningRates(config.lr, config.backbone_lr, config.text_lr, config.lr).scaled(config.lr_scale)

    def _in_ddp(self, objective: Objective) -> torch.nn.Module:
        if self.ranks.world == 1:
            return objective
        devices = [self.ranks.device] if self.ranks.device.type == "cuda" else None
        return DistributedDataParallel(
            objective, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def _saved_tokenizer(self) -> Tokenizer | None:
        return self.tokenizer if self.task.start.own_tokenizer else None

    def _notes(self) -> Mapping[str, Any]:
        datasets = [f"{part.manifest.title}/{part.manifest.split}" for part in self.task.data.parts]
        return {"run": self.config.run_name, "recipe": self.config.recipe, "step": self.done, "data": datasets,
                "mlflow_run": self.task.tracking.run_id, "precision": self.precision}  # fmt: skip
