"""Attention within shifted windows of a clip, for Video Swin and, with windows of one frame, for Swin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Size: TypeAlias = tuple[int, int, int]
"""(frames, rows, columns) in tokens."""


def relative_position_index(window: Size) -> Int[Tensor, "n n"]:
    """Returns the row of the bias table for every pair of tokens of the full window, row-major (spec 3)."""
    t, h, w = window
    grid = torch.stack(torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")).flatten(1)
    dt, di, dj = grid[:, :, None] - grid[:, None]
    return ((dt + t - 1) * (2 * h - 1) + di + h - 1) * (2 * w - 1) + dj + w - 1


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Window size, and the roll before the clip is split into windows; both per axis, in tokens."""

    window: Size
    shift: Size

    @classmethod
    def of(cls, size: Size, full: Size, *, shifted: bool, shrink: bool) -> "WindowPlan":
        """Returns the plan for a clip of that size (spec 3).

        With `shrink`, an axis no longer than the full window has a window of its own length and is not rolled.
        """
        fits = [shrink and length <= window for length, window in zip(size, full, strict=True)]
        window = [length if fit else side for length, side, fit in zip(size, full, fits, strict=True)]
        shift = [0 if fit or not shifted else side // 2 for side, fit in zip(full, fits, strict=True)]
        return cls((window[0], window[1], window[2]), (shift[0], shift[1], shift[2]))

    def padding(self, size: Size) -> Size:
        """Returns the number of tokens that each axis lacks to a multiple of the window."""
        t, h, w = (-length % side for length, side in zip(size, self.window, strict=True))
        return t, h, w

    def mixed_pairs(self, axes: Sequence[int], device: torch.device) -> Bool[Tensor, "n n"]:
        """Returns the pairs of tokens, in the last window of these rolled axes, that come from different ends.

        The last `shift` tokens along a rolled axis come from its other end.
        """
        region = torch.zeros(self.window, dtype=torch.int64, device=device)
        for axis in axes:
            rolled_in = torch.arange(self.window[axis], device=device) >= self.window[axis] - self.shift[axis]
            region = region + (rolled_in.long() << axis).view([-1 if axis == other else 1 for other in range(3)])
        return region.flatten()[:, None] != region.flatten()


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of each window, biased by their relative position."""

    index: Tensor

    def __init__(self, dim: int, heads: int, window: Size) -> None:
        super().__init__()
        self.heads = heads
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.position_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, heads), std=0.02))
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b t h w c"], plan: WindowPlan) -> Float[Tensor, "b t h w c"]:
        """Attends within the windows of x, which is already rolled and padded to multiples of the window."""
        wt, wh, ww = plan.window
        tokens = wt * wh * ww
        # Parity: a window that shrank in rows or columns takes the first entries of the index, which do not fit it.
        index = self.index[:tokens, :tokens].flatten()
        axes = {"wt": wt, "wh": wh, "ww": ww}
        qkv = self.qkv(x)
        bias = rearrange(self.position_bias[index], "(n m) k -> k n m", n=tokens).to(qkv.dtype)
        windows = rearrange(
            qkv,
            "b (gt wt) (gh wh) (gw ww) (three k d) -> three b gt gh gw k (wt wh ww) d",
            three=3,
            k=self.heads,
            **axes,
        )
        rolled = [axis for axis in range(3) if plan.shift[axis]]
        out = _attend_grid(windows, bias, plan, axes_left=rolled, wrapped=[])
        return self.output(rearrange(out, "b gt gh gw k (wt wh ww) d -> b (gt wt) (gh wh) (gw ww) (k d)", **axes))


def _attend_grid(
    windows: Float[Tensor, "3 b gt gh gw k n d"],
    bias: Float[Tensor, "k n n"],
    plan: WindowPlan,
    axes_left: list[int],
    wrapped: list[int],
) -> Float[Tensor, "b gt gh gw k n d"]:
    """Attends in a grid of windows, where only the last window along a rolled axis has tokens of both ends of the clip.

    The grid is split along the rolled axes until all windows of a part need the same mask, which is then stored once
    instead of per window.

    Args:
        windows: queries, keys, values.
        bias: added to the logits.
        plan: plan of the grid.
        axes_left: rolled axes along which this part of the grid is not yet split.
        wrapped: axes along which these windows have tokens of both ends.
    """
    if not axes_left:
        return _attend(windows, bias, plan.mixed_pairs(wrapped, windows.device) if wrapped else None)
    axis, *rest = axes_left
    inner, last = windows.split([windows.shape[axis + 2] - 1, 1], dim=axis + 2)
    parts = [_attend_grid(last, bias, plan, rest, [*wrapped, axis])]
    if inner.numel():
        parts.insert(0, _attend_grid(inner, bias, plan, rest, wrapped))
    return torch.cat(parts, dim=axis + 1)


def _attend(
    windows: Float[Tensor, "3 b gt gh gw k n d"], bias: Float[Tensor, "k n n"], mixed: Bool[Tensor, "n n"] | None
) -> Float[Tensor, "b gt gh gw k n d"]:
    if mixed is not None:
        bias = bias - 100.0 * mixed.to(bias)  # Parity: not minus infinity.
    query, key, value = windows.flatten(1, 4)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
    return out.unflatten(0, windows.shape[1:5])
