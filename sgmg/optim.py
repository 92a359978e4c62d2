"""Optimiser and learning rate schedule of the published training: AdamW with four parameter groups (spec 11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from sgmg.model import SgMg

WEIGHT_DECAY = 5e-4
"""Weight decay. Parity: of all parameters, including norms and biases."""
MAX_GRADIENT_NORM = 0.1
"""Maximum norm of the whole gradient, to which it is clipped."""


@dataclass(frozen=True, slots=True)
class LearningRates:
    """Learning rate of each parameter group (spec 11)."""

    main: float = 1e-4
    backbone: float = 5e-5
    text: float = 1e-5
    sampling: float = 1e-4  # the first reference, and the offsets of deformable attention

    def scaled(self, factor: float) -> "LearningRates":
        """Returns the rates multiplied by a factor.

        >>> LearningRates().scaled(0.5).backbone
        2.5e-05
        """
        return LearningRates(self.main * factor, self.backbone * factor, self.text * factor, self.sampling * factor)


def group_of(name: str) -> str:
    """Returns the group of a parameter of `SgMg`, a field of `LearningRates`, by its name.

    >>> group_of("text.word_resizer.fc.weight"), group_of("transformer.encoder.0.attention.offsets.bias")
    ('main', 'sampling')
    """
    if name.startswith("backbone."):
        return "backbone"
    if name.startswith("text.roberta."):
        return "text"
    if name.startswith("transformer.reference.") or ".offsets." in name:
        return "sampling"
    return "main"


def parameter_groups(model: SgMg, rates: LearningRates) -> list[dict[str, Any]]:
    """Returns the parameter groups for AdamW, with `name` and `lr`, of all trainable parameters.

    Empty groups (of a frozen text encoder) are kept, so that the order of groups is always the same.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in LearningRates.__slots__}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[group_of(name)].append(parameter)
    return [{"name": name, "lr": getattr(rates, name), "params": parameters} for name, parameters in groups.items()]


def optimizer_for(model: SgMg, rates: LearningRates | None = None) -> AdamW:
    """Returns the published AdamW over the trainable parameters; on a GPU one kernel changes them all."""
    groups = parameter_groups(model, rates or LearningRates())
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"]) or None
    return AdamW(groups, betas=(0.9, 0.999), weight_decay=WEIGHT_DECAY, fused=fused)


def schedule_for(optimizer: Optimizer, milestones: Sequence[int]) -> MultiStepLR:
    """Returns a schedule that divides rates by 10 at the start of these epochs (from 0); step it once per epoch.

    Raises:
        ValueError: the epochs are not strictly increasing.
    """
    if sorted(set(milestones)) != list(milestones):
        raise ValueError(f"The learning rate drops at epochs {list(milestones)}; give them rising, each once.")
    return MultiStepLR(optimizer, milestones=list(milestones), gamma=0.1)
