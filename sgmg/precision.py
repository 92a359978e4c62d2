"""The number format of the matrix products in the forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

from sgmg.config import Precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Returns the context in which a forward pass computes in `precision`; float32 needs none."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
