"""Multi-scale deformable sampling as Triton kernels for a GPU, compiled when they are first used: nothing to install.

A program is one warp: it takes a few queries of one head, and goes through the levels with a tile of points by queries
by channels. Samples are never stored. Sums are in float32, whatever the dtype of the values.

Each of the four cells around a sample is a load of its own. The channels of a cell and head are whole sectors of memory
as they lie (32 channels: 128 bytes, or 64 in bfloat16), so moving the cells of a head side by side would save nothing.

The gradient of the values and that of locations and weights are two kernels: one only adds, the other only reads, so
each has the order of threads that suits it, and a gradient that nobody needs is not computed.

Triton compiles the source of a kernel, so nothing may wrap it: `no_type_check` keeps jaxtyping's import hook away.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 1024
"""Points times queries times channels of a program: of 4 points and 32 channels, 8 queries.

That is 32 numbers a thread. Those of four cells are on their way at once, and no register is spilled to memory.
"""


@triton.jit
@no_type_check
def _block(
    cells, queries,
    K: tl.constexpr, D: tl.constexpr, P: tl.constexpr, WIDE: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Returns where the queries of a program and its head are in memory, and which parts of its tile exist.

    The programs of a frame follow one another, so that its values stay in the cache. Whatever is computed from `row` or
    `first` has 64 bits, as they have: tensors may have more elements than 32 bits count.

    Returns:
        row: of each query and the head, in the output, the locations and the weights.
        first: element of the values at which the first cell of the frame begins for the head.
        point, channel: indices along the tile, whose length is the next power of two.
        sampled: points by queries that exist.
        known: channels that exist.
        summed: queries by channels that exist.
    """
    blocks = tl.cdiv(queries, BLOCK)
    n, head = (tl.program_id(0) // blocks // K).to(tl.int64), tl.program_id(0) // blocks % K
    query = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    point, channel = tl.arange(0, POINTS), tl.arange(0, WIDE)
    real, known = query < queries, channel < D
    row = (n * queries + query) * K + head
    first = (n * cells * K + head) * D
    return row, first, point, channel, (point < P)[:, None] & real[None, :], known, real[:, None] & known[None, :]


@triton.jit
@no_type_check
def _level(levels, level):
    """Returns height, width and first cell of a level."""
    return tl.load(levels + level * 3), tl.load(levels + level * 3 + 1), tl.load(levels + level * 3 + 2)


@triton.jit
@no_type_check
def _position(locations, at, sampled, height, width):
    """Returns the cell before each sample, in floats, and the distance from there, along x and y.

    Far outside becomes just outside, where none of the four cells exists. NaN stays NaN: it is beyond every comparison,
    so nothing is read, and the result is NaN.
    """
    x = tl.load(locations + at * 2, mask=sampled, other=-1.0) * width - 0.5
    y = tl.load(locations + at * 2 + 1, mask=sampled, other=-1.0) * height - 0.5
    x = tl.clamp(x, -2.0, width.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    y = tl.clamp(y, -2.0, height.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    left, top = tl.floor(x), tl.floor(y)
    return left, top, x - left, y - top


@triton.jit
@no_type_check
def _cell(x, y, height, width, start):
    """Returns the index of each cell among those of all levels, and whether it exists; if not, that of the first."""
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, line = tl.where(inside, x, 0.0).to(tl.int32), tl.where(inside, y, 0.0).to(tl.int32)
    return (start + line * width + column).to(tl.int64), inside


@triton.jit(do_not_specialize=["cells", "queries"])
@no_type_check
def _sum_samples(
    values, levels, locations, weights, out, cells, queries,
    K: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr,
    WIDE: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the weighted sum of samples of each query and head."""
    row, first, point, channel, sampled, known, summed = _block(cells, queries, K, D, P, WIDE, POINTS, BLOCK)
    total = tl.zeros((BLOCK, WIDE), tl.float32)
    for level in range(L):
        height, width, start = _level(levels, level)
        at = (row * L + level)[None, :] * P + point[:, None]
        left, top, part_x, part_y = _position(locations, at, sampled, height, width)
        weight = tl.load(weights + at, mask=sampled, other=0.0)
        for below in tl.static_range(2):
            for right in tl.static_range(2):
                cell, inside = _cell(left + right, top + below, height, width, start)
                share = (part_x if right else 1 - part_x) * (part_y if below else 1 - part_y)
                at_cell = (first + cell * (K * D))[:, :, None] + channel[None, None, :]
                exists = inside[:, :, None] & known[None, None, :]
                value = tl.load(values + at_cell, mask=exists, other=0.0).to(tl.float32)
                total += tl.sum(value * (weight * share)[:, :, None], axis=0)
    tl.store(out + row[:, None] * D + channel[None, :], total, mask=summed)


@triton.jit(do_not_specialize=["cells", "queries"])
@no_type_check
def _add_value_gradient(
    levels, locations, weights, up, of_values, cells, queries,
    K: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr,
    WIDE: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds to the gradient of the values, from that of the output."""
    row, first, point, channel, sampled, known, summed = _block(cells, queries, K, D, P, WIDE, POINTS, BLOCK)
    gradient = tl.load(up + row[:, None] * D + channel[None, :], mask=summed, other=0.0).to(tl.float32)
    for level in range(L):
        height, width, start = _level(levels, level)
        at = (row * L + level)[None, :] * P + point[:, None]
        left, top, part_x, part_y = _position(locations, at, sampled, height, width)
        weight = tl.load(weights + at, mask=sampled, other=0.0)
        for below in tl.static_range(2):
            for right in tl.static_range(2):
                cell, inside = _cell(left + right, top + below, height, width, start)
                share = (part_x if right else 1 - part_x) * (part_y if below else 1 - part_y)
                at_cell = (first + cell * (K * D))[:, :, None] + channel[None, None, :]
                exists = inside[:, :, None] & known[None, None, :]
                part = gradient[None, :, :] * (weight * share)[:, :, None]
                # relaxed: else every addition waits for all memory accesses before it
                tl.atomic_add(of_values + at_cell, part, mask=exists, sem="relaxed")


@triton.jit(do_not_specialize=["cells", "queries"])
@no_type_check
def _write_sample_gradients(
    values, levels, locations, weights, up, of_locations, of_weights, cells, queries,
    K: tl.constexpr, D: tl.constexpr, L: tl.constexpr, P: tl.constexpr,
    WIDE: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of locations and weights, from that of the output."""
    row, first, point, channel, sampled, known, summed = _block(cells, queries, K, D, P, WIDE, POINTS, BLOCK)
    gradient = tl.load(up + row[:, None] * D + channel[None, :], mask=summed, other=0.0).to(tl.float32)
    for level in range(L):
        height, width, start = _level(levels, level)
        at = (row * L + level)[None, :] * P + point[:, None]
        left, top, part_x, part_y = _position(locations, at, sampled, height, width)
        of_weight = tl.zeros((POINTS, BLOCK), tl.float32)
        of_x = tl.zeros((POINTS, BLOCK), tl.float32)
        of_y = tl.zeros((POINTS, BLOCK), tl.float32)
        for below in tl.static_range(2):
            for right in tl.static_range(2):
                cell, inside = _cell(left + right, top + below, height, width, start)
                share_x = part_x if right else 1 - part_x
                share_y = part_y if below else 1 - part_y
                at_cell = (first + cell * (K * D))[:, :, None] + channel[None, None, :]
                exists = inside[:, :, None] & known[None, None, :]
                value = tl.load(values + at_cell, mask=exists, other=0.0).to(tl.float32)
                read = tl.sum(value * gradient[None, :, :], axis=2)
                of_weight += read * share_x * share_y
                of_x += read * share_y * (1.0 if right else -1.0)
                of_y += read * share_x * (1.0 if below else -1.0)
        weight = tl.load(weights + at, mask=sampled, other=0.0)
        tl.store(of_weights + at, of_weight, mask=sampled)
        tl.store(of_locations + at * 2, of_x * weight * width, mask=sampled)
        tl.store(of_locations + at * 2 + 1, of_y * weight * height, mask=sampled)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor:
        values, locations, weights = values.contiguous(), locations.contiguous(), weights.contiguous()
        ctx.save_for_backward(values, locations, weights)
        ctx.levels = _levels(tuple(shapes), values.device)
        out = values.new_empty(*weights.shape[:2], values.shape[2] * values.shape[3])
        _launch(_sum_samples, values, weights, (values, ctx.levels, locations, weights, out))
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the names of arguments)
        ctx: Any, *ups: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        values, locations, weights = ctx.saved_tensors
        needs_values, _, needs_locations, needs_weights = ctx.needs_input_grad
        up = ups[0].contiguous()
        of_values = of_locations = of_weights = None
        if needs_values:
            total = torch.zeros_like(values, dtype=torch.float32)  # many small parts do not add up in bfloat16
            _launch(_add_value_gradient, values, weights, (ctx.levels, locations, weights, up, total))
            of_values = total.to(values.dtype)
        if needs_locations or needs_weights:
            of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
            tensors = values, ctx.levels, locations, weights, up, of_locations, of_weights
            _launch(_write_sample_gradients, values, weights, tensors)
        return of_values, None, of_locations, of_weights


def sample_triton(
    values: Float[Tensor, "n s k d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Does what `sgmg.deformable_attention.sample_bilinear` does, with a gradient for values, locations and weights.

    On a GPU; under TRITON_INTERPRET=1 on a CPU, slowly. The gradient of the values is summed in no fixed order, so it
    differs in the last bits from run to run. Autocast changes nothing here: the output has the dtype of the values.

    Raises:
        ValueError: if the cells of `shapes` are not those of `values`.
        TypeError: if locations or weights are not in float32, or values in float64.
    """
    cells = sum(height * width for height, width in shapes)
    if cells != values.shape[1]:  # the kernels would read other memory
        raise ValueError(
            f"Levels of {list(shapes)} have {cells} cells, but the values have {values.shape[1]}. "
            f"Pass the (height, width) of every level that is joined in the values."
        )
    if values.dtype == torch.float64 or not locations.dtype == weights.dtype == torch.float32:
        raise TypeError(
            f"The kernels take locations and weights in float32, and values in float32 or less, but these are in "
            f"{locations.dtype}, {weights.dtype} and {values.dtype}. Convert them, or call sample_plainly."
        )
    return _Sample.apply(values, shapes, locations, weights)  # pyright: ignore[reportReturnType]


def _launch(kernel: Any, values: Tensor, weights: Tensor, tensors: tuple[Tensor, ...]) -> None:
    """Runs a kernel on tensors, with a program for each frame, head and block of queries."""
    n, cells, heads, depth = values.shape
    _, queries, _, levels, points = weights.shape
    tile = tile_sizes(points, depth)
    programs = n * heads * triton.cdiv(queries, tile["BLOCK"])
    if programs == 0:  # CUDA launches no empty grid
        return
    with torch.cuda.device_of(values):  # Triton launches on the current GPU, which need not be theirs
        kernel[(programs,)](
            *tensors, cells, queries, K=heads, D=depth, L=levels, P=points, **tile, **OPTIONS,
        )  # fmt: skip


OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}
"""How the kernels are compiled; fused products and sums are named because Triton 3.10 stops making them unasked."""


def tile_sizes(points: int, depth: int) -> dict[str, int]:
    """Returns the lengths of a program's tile, powers of two: points, queries and channels."""
    wide, padded = triton.next_power_of_2(depth), triton.next_power_of_2(points)
    return {"POINTS": padded, "BLOCK": max(1, TILE // (padded * wide)), "WIDE": wide}


@lru_cache(maxsize=64)
def _levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Returns height, width and first cell of each level, on the device."""
    rows, first = [], 0
    for height, width in shapes:
        rows.append((height, width, first))
        first += height * width
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.int32, device=device)
