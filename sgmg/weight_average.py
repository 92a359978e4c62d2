"""Exponential moving average of a model's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Moving average of the weights that a model learns; those that are frozen need none.

    After step n the average keeps min(decay, (1 + n) / (10 + n)) of itself, so that a young one follows fast
    (as TensorFlow's ExponentialMovingAverage does with `num_updates`).

    Args:
        model: on its device; the average begins with its weights.
        decay: between 0 and 1, such as 0.999: an average over about 1 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._model = model
        self._averages = {name: weight.detach().clone() for name, weight in self._learned().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the model's weights of now to the average."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, weight in self._learned().items():
            self._averages[name].lerp_(weight, 1 - kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the model's state dict with the averages in place of the weights they are of."""
        return {**self._model.state_dict(), **self._averages}

    def load_state_dict(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Restores the averages of a `state_dict`, and the number of updates they are of."""
        self.steps = steps
        for name, average in self._averages.items():
            average.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the averages in place of the model's weights for the block."""
        kept = {name: weight.detach().clone() for name, weight in self._learned().items()}
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._learned().items():
            weight.copy_(values[name])

    def _learned(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
