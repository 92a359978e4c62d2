"""Learning rate schedules."""

import math

from pipelines.training.config import TrainConfig


def lr_factor(config: TrainConfig, step: int, steps: int, per_epoch: int) -> float:
    """Returns the factor of the learning rates at an optimiser step, apart from that of the batch."""
    warm = config.warmup_steps
    if config.schedule == "multistep":
        drops = sum(step // per_epoch >= drop for drop in config.lr_milestones)
        return 0.1**drops * min(1.0, (step + 1) / max(1, warm))
    warm = warm or max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
