"""A mend of torch on Intel processors: the first call of its vector functions must not come from two threads at once.

There `sin`, `exp`, `log` and the like are those of MKL, which chooses its kernels at the first call. If a tensor is so
large that two threads make that call, one of them now and then (in about one process of 2 800) computes its part with a
kernel of less accuracy: position embeddings were off by 1e-4, and right at the next call.
"""

import torch

_FUNCTIONS = ("sin", "cos", "exp", "expm1", "log", "tanh", "erf", "sqrt")


def settle() -> None:
    """Calls each function once, on one number and so on one thread."""
    for name in _FUNCTIONS:
        getattr(torch, name)(torch.full((1,), 0.5))
