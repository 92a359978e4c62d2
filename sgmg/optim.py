"""The published optimiser: AdamW over four groups of parameters, and its steps down (spec 11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from sgmg.model import SgMg

WEIGHT_DECAY = 5e-4
"""Parity: on every parameter, norms and biases included."""
MAX_GRADIENT_NORM = 0.1
"""The norm of the whole gradient is clipped to this."""


@dataclass(frozen=True, slots=True)
class LearningRates:
    """One rate a group, at lr factor 1 (spec 11)."""

    main: float = 1e-4
    backbone: float = 5e-5
    text: float = 1e-5
    sampling: float = 1e-4  # the first reference, and the offsets of deformable attention

    def scaled(self, factor: float) -> "LearningRates":
        """All rates multiplied.

        >>> LearningRates().scaled(0.5).backbone
        2.5e-05
        """
        return LearningRates(self.main * factor, self.backbone * factor, self.text * factor, self.sampling * factor)


def group_of(name: str) -> str:
    """The group of a parameter of `SgMg`, by its name: a field of `LearningRates`.

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
    """What AdamW takes: every parameter that learns, in the group that `name` says, at its `lr`.

    A group without parameters (a frozen text encoder) is kept, so that groups and their logs keep their places.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in LearningRates.__slots__}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[group_of(name)].append(parameter)
    return [{"name": name, "lr": getattr(rates, name), "params": parameters} for name, parameters in groups.items()]


def optimizer_for(model: SgMg, rates: LearningRates | None = None) -> AdamW:
    """AdamW as published, over the parameters that learn."""
    return AdamW(parameter_groups(model, rates or LearningRates()), betas=(0.9, 0.999), weight_decay=WEIGHT_DECAY)


def schedule_for(optimizer: Optimizer, drops: Sequence[int]) -> MultiStepLR:
    """Rates fall to a tenth at the start of each of these epochs, counted from 0; step it once an epoch.

    Raises:
        ValueError: the epochs do not rise.
    """
    if sorted(set(drops)) != list(drops):
        raise ValueError(f"The learning rate drops at epochs {list(drops)}; give them rising, each once.")
    return MultiStepLR(optimizer, milestones=list(drops), gamma=0.1)
