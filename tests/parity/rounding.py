"""Comparisons that do not depend on how a processor rounds.

Two ways of computing one thing round differently, and by how much depends on the kernels of the processor. So both
ways run `in_float64`, where rounding is a billionth of what any mistake makes; or, where float32 itself is looked at,
what is allowed is a multiple of the rounding that `rounding_of` measures. Where nothing may differ, tests ask for
equality and need none of this.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

TIMES = 30
"""How much more than the measured rounding is allowed: as the pack of golden cases has it."""


class _Widened(TorchFunctionMode):
    """Gives float64 to whoever asks for float32: the library does, in whatever must not be of half precision."""

    def __init__(self, constants: bool) -> None:
        super().__init__()
        self.constants = constants

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named: dict[str, Any] = dict(kwargs or {})
        if func is torch.Tensor.float and (self.constants or args[0].dtype == torch.float64):
            func = torch.Tensor.double
        if self.constants:
            args = tree_map(_widened, args)
            named = {name: tree_map(_widened, value) for name, value in named.items()}
        return func(*args, **named)


def _widened(value: Any) -> Any:
    """Returns float64 for the dtype float32, and anything else as it is."""
    return torch.float64 if value is torch.float32 else value


@contextmanager
def in_float64(*, constants: bool = True) -> Iterator[None]:
    """Everything that is drawn, built or computed while the block runs is float64, the library's own float32 too.

    Models and inputs made outside are not: convert them with `.double()`.

    Args:
        constants: False leaves what the library makes of no other numbers in float32, above all the positions. Those of
            padded cells are sines of millions of turns, of which float32 and float64 know different ones.

    >>> with in_float64():
    ...     torch.zeros(1).float().dtype, torch.arange(2, dtype=torch.float32).dtype
    (torch.float64, torch.float64)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened(constants):
            yield
    finally:
        torch.set_default_dtype(before)


def rounding_of(found: np.ndarray | Sequence[float], exact: np.ndarray | Sequence[float]) -> float:
    """What float32 results may be off: `TIMES` the worst error of `found`, which is float32, against float64.

    At least `TIMES` the resolution of float32 at the largest value: an error may be zero by luck.
    """
    found, exact = np.asarray(found, dtype=np.float64), np.asarray(exact, dtype=np.float64)
    resolution = np.finfo(np.float32).eps * np.abs(exact).max()
    return TIMES * float(max(np.abs(found - exact).max(), resolution))
