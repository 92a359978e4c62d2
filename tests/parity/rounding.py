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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*_widened(args), **_widened(kwargs or {}))


def _widened(given: Any) -> Any:
    return tree_map(lambda one: torch.float64 if one is torch.float32 else one, given)


@contextmanager
def in_float64() -> Iterator[None]:
    """Everything that is drawn, built or computed while the block runs is float64, the library's own float32 too.

    Models and inputs made outside are not: convert them with `.double()`.

    >>> with in_float64():
    ...     torch.zeros(1).float().dtype, torch.arange(2, dtype=torch.float32).dtype
    (torch.float64, torch.float64)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
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
