"""One optimiser step of the published recipe over a global batch that may span several forward passes and ranks."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sgmg.batch import ClipBatch, ClipTargets
from sgmg.losses import check_finite, count_valid_frames
from sgmg.optim import MAX_GRADIENT_NORM
from sgmg.precision import Precision, autocast


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The clips that share one forward pass, and the seed of its dropout: the same on any rank, after any restart."""

    batch: ClipBatch
    targets: ClipTargets
    seed: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step came to. Losses are those of the global batch; the norm is the gradient's before clipping."""

    losses: Mapping[str, float]
    gradient_norm: float
    skipped: bool = False  # float16 only: the gradient overflowed, the scale was halved and no weight changed
    seconds: Mapping[str, float] = field(default_factory=dict)  # by phase, where they are measured


class TrainStep:
    """Forward, backward, clip, step. Behaves alike for 1 GPU with 16 passes and 16 GPUs with one.

    Args:
        objective: `sgmg.objective.Objective`, or DDP round it.
        optimizer: over its parameters.
        precision: of the forward pass; float16 scales its losses.
        max_grad_norm: the norm of the whole gradient is clipped to this.
        measure: report the seconds of each phase, waiting for the device at their ends.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: Optimizer,
        *,
        device: torch.device,
        precision: Precision = "float32",
        max_grad_norm: float = MAX_GRADIENT_NORM,
        measure: bool = False,
    ) -> None:
        self.objective, self.optimizer, self.device = objective, optimizer, device
        self.precision: Precision = precision
        self.max_grad_norm = max_grad_norm
        self.measure = measure
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def __call__(self, micro_batches: Sequence[MicroBatch], step: int) -> StepReport:
        """Teaches the model one global batch, of which `micro_batches` are this rank's passes, at least one.

        Raises:
            FloatingPointError: a loss or the gradient is not finite, on any rank; no weight has changed. All ranks
                raise together.
            ValueError: the object of an expression is in no frame.
        """
        clock = _Clock(self.device, self.measure)
        valid = self._valid_frames(micro_batches)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, one in enumerate(micro_batches):
            with self._gradients_shared(last=number == len(micro_batches) - 1):
                torch.manual_seed(one.seed)
                with autocast(self.device, self.precision):
                    losses: dict[str, Tensor] = self.objective(
                        one.batch.to(self.device, non_blocking=True),
                        one.targets.to(self.device, non_blocking=True),
                        valid,
                    )
                clock.lap("forward")
                self.scaler.scale(losses["total"]).backward()
                clock.lap("backward")
            sums = {name: loss.detach() + sums.get(name, 0.0) for name, loss in losses.items()}
        found = _mean_over_ranks(sums)
        check_finite(found, step)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        if self.precision != "float16":  # there the scaler looks, and skips the step
            check_finite({"gradient norm": norm}, step)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped = self.precision == "float16" and self.scaler.get_scale() < before
        clock.lap("optimiser")
        values = torch.stack([*found.values(), norm]).tolist()
        return StepReport(dict(zip(found, values, strict=False)), values[-1], skipped, clock.seconds)

    def state_dict(self) -> dict[str, Any]:
        """State of optimiser and scaler: tensors and plain values."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _valid_frames(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """V of spec 9 over the whole step, before the first backward pass; a rank's share of it."""
        count = torch.stack([count_valid_frames(one.targets) for one in micro_batches]).sum().to(self.device)
        return _mean_over_ranks({"count": count})["count"]

    def _gradients_shared(self, *, last: bool) -> AbstractContextManager:
        """Ranks add up their gradients in the last backward pass only."""
        return (
            self.objective.no_sync()
            if isinstance(self.objective, DistributedDataParallel) and not last
            else nullcontext()
        )


def _mean_over_ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each over the ranks, in one message: as DDP averages gradients, so the losses of the global batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return dict(values)
    together = torch.stack([value.double() for value in values.values()])
    dist.all_reduce(together)
    together = (together / dist.get_world_size()).float()
    return dict(zip(values, together.unbind(), strict=True))


class _Clock:
    """Seconds by phase, if they are wanted."""

    def __init__(self, device: torch.device, wanted: bool) -> None:
        self.device, self.wanted = device, wanted
        self.seconds: dict[str, float] = {}
        self.last = self._now() if wanted else 0.0

    def lap(self, phase: str) -> None:
        if self.wanted:
            now = self._now()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
            self.last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
