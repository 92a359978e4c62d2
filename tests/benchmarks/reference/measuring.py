"""Times of functions that take turns, the work that they do, and the limits of the machine."""

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sgmg.config import Precision

SHORT: dict[Precision, str] = {"float32": "fp32", "bfloat16": "bf16"}

WayT = TypeVar("WayT", bound=Hashable)


def in_turns(
    ways: Mapping[WayT, Callable[[], object]], rounds: int, device: torch.device, first: Iterable[WayT] | None = None
) -> dict[WayT, list[float]]:
    """Returns the seconds of each way in each round.

    Args:
        ways: what is measured.
        rounds: how often.
        device: device that is waited for.
        first: ways that are run once before, so that caches fill; None for all of them.
    """
    for way in ways if first is None else first:
        ways[way]()
    taken: dict[WayT, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            taken[way].append(_seconds(run, device))
    return taken


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of a run on the wall, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Returns the median of the ratios of the rounds."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


@torch.no_grad()  # not inference_mode, in which products cannot be counted
def counted(run: Callable[[], object], model: nn.Module) -> tuple[int, int]:
    """Returns the operations in products of a run of the model, 2 for each multiplication, and the bytes moved."""
    model.requires_grad_(False)
    with _Moved() as moved, FlopCounterMode(display=False) as products:
        run()
    model.requires_grad_(True)  # as `Segmenter` has it: autocast keeps the half-precision copies of such weights only
    return products.get_total_flops(), moved.bytes


class _Moved(TorchDispatchMode):
    """Sum of the bytes that operations take and give, each tensor once; a view moves nothing.

    What a Triton kernel moves is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        taken, given = _tensors((args, kwargs)), _tensors(out)
        known = {tensor.untyped_storage().data_ptr() for tensor in taken}
        is_view = not func._schema.is_mutable and any(x.untyped_storage().data_ptr() in known for x in given)
        if not is_view and "empty" not in func.__name__:
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in (*taken, *given))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def product_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """Returns the operations a second of the product of two square matrices, 2 for each multiplication."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(in_turns({"product": lambda: a @ b}, 10, device)["product"])


def copy_rate(size: int, device: torch.device) -> float:
    """Returns the bytes a second that are read and written by a copy of `size` bytes, which fit no cache."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(in_turns({"copy": lambda: target.copy_(source)}, 5, device)["copy"])
