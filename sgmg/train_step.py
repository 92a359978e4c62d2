"""Optimiser step of the published training, over a global batch of several forward passes and ranks."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sgmg.batch import ClipBatch, ClipTargets
from sgmg.losses import check_finite, check_targets, count_valid_frames
from sgmg.model_input import check_batch
from sgmg.optim import MAX_GRADIENT_NORM
from sgmg.precision import Precision, autocast


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Clips of one forward pass, and the seed of its dropout, which depends on neither rank nor restarts."""

    batch: ClipBatch
    targets: ClipTargets
    seed: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """Result of one step: losses of the global batch, and the norm of the gradient before clipping."""

    losses: Mapping[str, float]
    gradient_norm: float
    skipped: bool = False  # float16 only: the gradient overflowed; the loss scale was halved and weights are unchanged
    seconds: Mapping[str, float] = field(default_factory=dict)  # by phase, if measured


class TrainStep:
    """Runs forward, backward, clipping and the optimiser step. 1 GPU with 16 passes equals 16 GPUs with one.

    Args:
        objective: `sgmg.objective.Objective`, possibly wrapped in DDP.
        optimizer: optimiser of its parameters.
        precision: number type of the forward pass; float16 scales the losses.
        max_grad_norm: maximum norm of the whole gradient, to which it is clipped.
        measure: whether to report the seconds of each phase, which synchronises with the device.
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
        """Trains on one global batch, of which `micro_batches` are this rank's passes (at least one).

        Raises:
            FloatingPointError: a loss or the gradient is not finite on any rank; weights are unchanged. All ranks raise
                it.
            ValueError: an expression of weight 1 has no frame with its object.
        """
        for one in micro_batches:  # here, where they are at hand
            check_batch(one.batch)
            check_targets(one.targets)
        clock = _Clock(self.device, self.measure)
        valid = self._valid_frames(micro_batches)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, one in enumerate(micro_batches):
            with self._gradients_shared(last=number == len(micro_batches) - 1):
                torch.manual_seed(one.seed)
                with autocast(self.device, self.precision):
                    losses: dict[str, Tensor] = self.objective(*self._sent(one), valid)
                clock.lap("forward")
                self.scaler.scale(losses["total"]).backward()
                clock.lap("backward")
            sums = {name: loss.detach() + sums.get(name, 0.0) for name, loss in losses.items()}
        losses_of_step = _mean_over_ranks(sums)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        # The only look at the device in a step: whoever waits for it keeps it from being given more work.
        *values, gradient_norm = torch.stack([*losses_of_step.values(), norm]).tolist()
        losses_found = dict(zip(losses_of_step, values, strict=True))
        # In float16 an infinite gradient is no error: the scaler skips the step.
        overflows = {} if self.precision == "float16" else {"gradient norm": gradient_norm}
        try:
            check_finite(losses_found | overflows, step)
        except FloatingPointError:
            self.scaler.update()  # which ends its step: else it refuses the next one
            raise
        skipped = self._optimise()
        clock.lap("optimiser")
        return StepReport(losses_found, gradient_norm, skipped, clock.seconds)

    def _optimise(self) -> bool:
        """Changes the weights. Returns whether the scaler of float16 skipped the step."""
        if self.precision != "float16":
            self.optimizer.step()
            return False
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() < before

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of optimiser and scaler, as tensors and plain values."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        # How the weights are changed is this machine's to choose, not that of the machine that saved the state.
        ours = [group.get("fused") for group in self.optimizer.param_groups]
        saved = state["optimizer"]["param_groups"]
        groups = [group | {"fused": fused} for group, fused in zip(saved, ours, strict=True)]
        self.optimizer.load_state_dict(state["optimizer"] | {"param_groups": groups})
        if self.scaler.is_enabled() and state["scaler"]:  # one was saved, unless the run had another precision so far
            self.scaler.load_state_dict(state["scaler"])

    def _sent(self, one: MicroBatch) -> tuple[ClipBatch, ClipTargets]:
        """Sends a batch to the device, but for the token ids: known sentences are looked up by them."""
        batch = one.batch.to(self.device, non_blocking=True)
        batch = replace(batch, token_ids=one.batch.token_ids, token_padding=one.batch.token_padding)
        return batch, one.targets.to(self.device, non_blocking=True)

    def _valid_frames(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Returns V of spec 9 for the whole step, divided by the number of ranks."""
        count = torch.stack([count_valid_frames(one.targets) for one in micro_batches]).sum()
        count = count.to(self.device, non_blocking=True)
        return _mean_over_ranks({"count": count})["count"]

    def _gradients_shared(self, *, last: bool) -> AbstractContextManager:
        """Returns the context of a backward pass; ranks reduce their gradients in the last one only."""
        return (
            self.objective.no_sync()
            if isinstance(self.objective, DistributedDataParallel) and not last
            else nullcontext()
        )


def _mean_over_ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Averages each value over the ranks in one message, as DDP does with gradients."""
    if not (dist.is_available() and dist.is_initialized()):
        return dict(values)
    together = torch.stack([value.double() for value in values.values()])
    dist.all_reduce(together)
    together = (together / dist.get_world_size()).float()
    return dict(zip(values, together.unbind(), strict=True))


class _Clock:
    """Stopwatch of the seconds by phase; does nothing unless `enabled`."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.device, self.enabled = device, enabled
        self.seconds: dict[str, float] = {}
        self.last = self._now() if enabled else 0.0

    def lap(self, phase: str) -> None:
        if self.enabled:
            now = self._now()
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
            self.last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
