"""Attention within shifted windows of a clip, for Video Swin and, with windows of one frame, for Swin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sgmg.precision import product_dtype

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

    def mixed_pairs(self, axes: Sequence[int]) -> Bool[Tensor, "n n"]:
        """Returns the pairs of tokens, in the last window of these rolled axes, that come from different ends.

        The last `shift` tokens along a rolled axis come from its other end.
        """
        region = torch.zeros(self.window, dtype=torch.int64)
        for axis in axes:
            rolled_in = torch.arange(self.window[axis]) >= self.window[axis] - self.shift[axis]
            region = region + (rolled_in.long() << axis).view([-1 if axis == other else 1 for other in range(3)])
        return region.flatten()[:, None] != region.flatten()


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """The place of each token of the clips when they are padded, rolled and cut into windows of n tokens.

    Windows that need the same mask stand together. Only a last window along a rolled axis has tokens of both ends of
    the clip, so there are few masks.
    """

    token: Int[
        Tensor, " places"
    ]  # the token at each place of each window; where that is padding, one past the last token
    place: Int[Tensor, " tokens"]  # the place of each token
    groups: tuple[tuple[int, Bool[Tensor, "n n"] | None], ...]  # number of windows, and their pairs of both ends

    @classmethod
    def of(cls, clips: int, size: Size, plan: WindowPlan, device: torch.device) -> "WindowLayout":
        """Returns the layout for clips of that size; computed once for each size, and kept."""
        return _window_layout(clips, size, plan, device)


@lru_cache(maxsize=128)
def _window_layout(clips: int, size: Size, plan: WindowPlan, device: torch.device) -> WindowLayout:
    """Computes a layout.

    Parity: padding precedes the roll, and padded tokens are attended to.
    """
    (t, h, w), (wt, wh, ww) = size, plan.window
    tokens = t * h * w
    with torch.inference_mode(False):  # training may use it later
        padded = [length + more for length, more in zip(size, plan.padding(size), strict=True)]
        number = torch.full(padded, -1)
        number[:t, :h, :w] = torch.arange(tokens).view(size)
        number = number.roll([-shift for shift in plan.shift], dims=(0, 1, 2))
        grid = rearrange(number, "(gt wt) (gh wh) (gw ww) -> gt gh gw (wt wh ww)", wt=wt, wh=wh, ww=ww)
        wrapped = torch.zeros(grid.shape[:3], dtype=torch.int64)  # a bit for each axis whose ends meet in the window
        for axis in range(3):
            if plan.shift[axis]:
                wrapped.select(axis, -1).bitwise_or_(1 << axis)
        kinds, order = wrapped.flatten().sort(stable=True)
        windows = grid.flatten(0, 2)[order]
        of_clip = torch.arange(clips).view(-1, 1) * tokens
        token = torch.where(windows[:, None] < 0, clips * tokens, windows[:, None] + of_clip).flatten()
        place = torch.empty(clips * tokens + 1, dtype=torch.int64)
        place[token] = torch.arange(len(token))
        groups = tuple(
            (count * clips, plan.mixed_pairs([a for a in range(3) if kind >> a & 1]).to(device) if kind else None)
            for kind, count in torch.stack(kinds.unique_consecutive(return_counts=True), dim=1).tolist()
        )
        return WindowLayout(token.to(device), place[:-1].to(device), groups)


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
        """Attends within windows. Tokens are projected where they are; only what is projected is cut into windows."""
        layout = WindowLayout.of(len(x), (x.shape[1], x.shape[2], x.shape[3]), plan, x.device)
        qkv = self.qkv(_and_a_row_of_zeros(x.flatten(0, 3)))
        n = math.prod(plan.window)
        windows = rearrange(
            qkv.index_select(0, layout.token), "(g n) (three k d) -> three g k n d", n=n, three=3, k=self.heads
        )
        # Parity: a window that shrank in rows or columns takes the first entries of the index, which do not fit it.
        index = self.index[:n, :n].flatten()
        bias = rearrange(self.position_bias[index], "(n m) k -> k n m", n=n).to(qkv.dtype)
        parts = windows.split([count for count, _ in layout.groups], dim=1)
        attended = [_attend(part, bias, mixed) for part, (_, mixed) in zip(parts, layout.groups, strict=True)]
        joined = rearrange(torch.cat(attended) if len(attended) > 1 else attended[0], "g k n d -> (g n) (k d)")
        return self.output(joined.index_select(0, layout.place)).view(x.shape)


def _and_a_row_of_zeros(tokens: Float[Tensor, "s c"]) -> Float[Tensor, "s+1 c"]:
    """Appends what padding is, in the dtype of the product that follows: one pass for both."""
    rows = tokens.new_empty(len(tokens) + 1, tokens.shape[1], dtype=product_dtype(tokens))
    rows[:-1] = tokens
    rows[-1] = 0
    return rows


def _attend(
    windows: Float[Tensor, "3 g k n d"], bias: Float[Tensor, "k n n"], mixed: Bool[Tensor, "n n"] | None
) -> Float[Tensor, "g k n d"]:
    if mixed is not None:
        bias = bias - 100.0 * mixed.to(bias)  # Parity: not minus infinity.
    query, key, value = windows
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
