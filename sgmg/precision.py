"""The number format of the matrix products in the forward pass."""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmg.config import Precision, PrecisionChoice, SgMgConfig

_log = logging.getLogger(__name__)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Returns the context in which a forward pass computes in `precision`; float32 needs none."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Returns the dtype that products are computed in now, if autocast is on; tensors without data know none."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def in_bfloat16(device: torch.device) -> bool:
    """Returns whether products are computed in bfloat16 now; unlike float16, it has the range of float32."""
    return autocast_dtype(device) == torch.bfloat16


def product_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype in which a product of x is computed: that of autocast where it is on, else its own."""
    return autocast_dtype(x.device) or x.dtype


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Returns the context in which products are computed in the dtype of their operands."""
    return nullcontext() if autocast_dtype(device) is None else torch.autocast(device.type, enabled=False)


def without_float16(device: torch.device) -> AbstractContextManager:
    """Returns the context for what float16 has no range or precision for: float32 there, bfloat16 as it is."""
    return nullcontext() if in_bfloat16(device) else without_autocast(device)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Applies a layer in float32, whatever is chosen for the products around it."""
    with without_autocast(x.device):
        return layer(x.float())


@dataclass(frozen=True, slots=True)
class PrecisionFound:
    """A precision that suits a device, and why; `surprises` if it is not what was asked for, or is slow."""

    precision: Precision
    why: str
    surprises: bool = False

    def log(self) -> Precision:
        """Says in the log what was found, and returns the precision."""
        _log.log(logging.WARNING if self.surprises else logging.INFO, "precision %s: %s", self.precision, self.why)
        return self.precision


def find_precision(chosen: PrecisionChoice, device: torch.device | str, model: SgMgConfig) -> PrecisionFound:
    """Returns the precision that a model computes in on a device.

    "auto" is the fastest that the device computes well. A GPU that does not compute in bfloat16 takes another one; a
    CPU imitates it, slowly.
    """
    if chosen in ("float32", "float16"):  # every device has them
        return PrecisionFound(chosen, "as chosen")
    device = torch.device(device)
    if chosen == "auto":
        return PrecisionFound(*fastest_precision(device, model.width, model.ffn))
    if computes_bfloat16(device):
        return PrecisionFound(chosen, "as chosen")
    if device.type == "cuda":
        return PrecisionFound(*fastest_precision(device, model.width, model.ffn), surprises=True)
    return PrecisionFound(chosen, "as chosen, but slow: this processor has no instructions for it", surprises=True)


@lru_cache(maxsize=8)
def fastest_precision(device: torch.device, width: int, ffn: int) -> tuple[Precision, str]:
    """Returns the precision that "auto" stands for on a device, and why, for the log.

    On a CPU with instructions for bfloat16, a product of the model's kind is timed, for up to a second: instructions
    may be slow or switched off. A small model gains nothing by them, so its precision does not hang on a measurement.

    Args:
        width, ffn: channels of the model, and of the layers between them.
    """
    if device.type == "cuda":
        name, (major, _) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        if major >= 8:
            return "bfloat16", f"{name} computes in it"
        if major >= 7:
            return "float16", f"{name} does not compute in bfloat16"
        return "float32", f"{name} computes in no half precision"
    if device.type != "cpu" or not computes_bfloat16(device):
        return "float32", "this processor has no instructions for bfloat16"
    if width < _WIDE:
        return "float32", f"products of {width} channels gain nothing by bfloat16 on a processor"
    gain = _gain_of_bfloat16(width, ffn)
    if gain < _WORTH_IT:
        return "float32", f"bfloat16 makes products of this model only {gain:.1f} times as fast on this processor"
    return "bfloat16", f"it makes products of this model {gain:.1f} times as fast on this processor"


def computes_bfloat16(device: torch.device) -> bool:
    """Returns whether a device has instructions for products in bfloat16; elsewhere they are imitated, slowly."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(has.get("amx_bf16") or has.get("avx512_bf16"))


_WORTH_IT = 2.0
"""How many times as fast products in bfloat16 have to be."""

_WIDE = 128
"""Channels of a model from which on it may be."""


@torch.inference_mode()
def _gain_of_bfloat16(width: int, ffn: int) -> float:
    """Returns how many times as fast products are in bfloat16."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        cells, weights = torch.ones(2048, width, dtype=dtype), torch.ones(ffn, width, dtype=dtype)
        times, end = [], time.perf_counter() + 0.4
        while len(times) < 3 or (len(times) < 10 and time.perf_counter() < end):
            started = time.perf_counter()
            F.linear(cells, weights)
            times.append(time.perf_counter() - started)
        best[dtype] = min(times)
    return best[torch.float32] / best[torch.bfloat16]
