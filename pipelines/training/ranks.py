"""The workers of a run, as one of them sees them."""

from dataclasses import dataclass
from typing import TypeVar

import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import get_device

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rank of this worker among `world`, and its device."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def of_ray_train(cls) -> "Ranks":
        """Returns the ranks of the worker of Ray Train that this process is."""
        context = ray.train.get_context()
        return cls(context.get_world_rank(), context.get_world_size(), get_device())

    def broadcast(self, value: T) -> T:
        """Returns the value of rank 0 on all ranks."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sums(self, *values: float) -> list[float]:
        """Returns the sum of each value over all ranks."""
        if self.world == 1:
            return list(values)
        counted = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(counted)
        return counted.tolist()
