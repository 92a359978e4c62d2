"""Multi-scale deformable attention (Zhu et al. 2021) in plain PyTorch, without a compiled extension."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sgmg import vector_math
from sgmg.precision import without_float16

vector_math.settle()

_log = logging.getLogger(__name__)

Shapes = Sequence[tuple[int, int]]
"""(height, width) of each level, in cells."""

Sampler = Callable[[Float[Tensor, "n m k l p 2"], Float[Tensor, "n m k l p"]], Float[Tensor, "n m k*d"]]
"""From locations and weights to weighted sums of bilinear samples."""

CPU_PART = 512
"""Cells that ask at once on a CPU: what is computed for them stays in its cache."""


def sample_bilinear(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Returns the weighted sum of bilinear samples over levels and points, for every head; zeros outside a level.

    Args:
        values: s cells of all levels, row-major and joined; k heads of d channels.
        shapes: (height, width) of each level.
        locations: xy in units of the level, 0 at the outer edge of the first cell and 1 at that of the last.
        weights: weight of each sample.
    """
    return bilinear_sampler(values, shapes)(locations, weights)


def bilinear_sampler(values: Float[Tensor, "n s k d"], shapes: Shapes) -> Sampler:
    """Returns `sample_bilinear` for these values, to be called for some of the queries at a time.

    On a GPU with Triton, samples are added up in one kernel. Elsewhere they are stored only where a gradient may be
    needed, which makes the backward pass fast.
    """
    if values.is_cuda and (kernel := triton_sampling()):
        return partial(kernel, values, shapes)
    return plain_sampler(values, shapes)


def plain_sampler(values: Float[Tensor, "n s k d"], shapes: Shapes) -> Sampler:
    """Does what `bilinear_sampler` does with operations of PyTorch."""
    if torch.is_grad_enabled():
        return partial(_sample_levels, values, shapes)
    return partial(_sample_bags, _bordered(values, shapes), tuple(shapes))


def sample_plainly(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Does what `sample_bilinear` does with operations of PyTorch."""
    return plain_sampler(values, shapes)(locations, weights)


@lru_cache(maxsize=1)
def triton_sampling() -> Callable[..., Tensor] | None:
    """Returns the fused kernels, tried on a small sample; None, said once in the log, where Triton fails at them."""
    try:
        from sgmg.deformable_triton import sample_triton  # here: only what runs on a GPU has Triton

        with torch.inference_mode(False), torch.enable_grad():
            values = torch.zeros(1, 1, 1, 32, device="cuda", requires_grad=True)
            locations = torch.zeros(1, 1, 1, 1, 1, 2, device="cuda", requires_grad=True)
            sample_triton(values, [(1, 1)], locations, locations[..., 0]).sum().backward()
    except Exception as error:  # whatever a compiler, a driver or a missing package may raise
        _log.warning("deformable attention runs without its Triton kernel, slower: %s: %s", type(error).__name__, error)
        return None
    return sample_triton


def _sample_levels(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Samples level by level with `grid_sample`."""
    levels = values.split([h * w for h, w in shapes], dim=1)
    grids = rearrange(2 * locations - 1, "n m k l p xy -> l (n k) p m xy")
    shares = rearrange(weights, "n m k l p -> l (n k) 1 p m")
    total = torch.zeros((), device=values.device)
    for level, (h, _), grid, share in zip(levels, shapes, grids, shares, strict=True):
        image = rearrange(level, "n (h w) k d -> (n k) d h w", h=h).to(grid.dtype)
        samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + (samples * share).sum(dim=2)
    return rearrange(total, "(n k) d m -> n m (k d)", n=len(values))


def _sample_bags(
    bordered: Float[Tensor, "n cells k d"],
    shapes: tuple[tuple[int, int], ...],
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Samples all levels at once: a bilinear sample is four weighted rows, so a head reads one weighted bag of rows."""
    n, _, heads, _ = bordered.shape
    grid = _bordered_grid(shapes, heads, weights.shape[-1], bordered.device)
    x, y = (rearrange(locations[..., axis], "n m k l p -> n m k (l p)") for axis in (0, 1))
    (column, of_column), (row, of_row) = _before(x, grid.widths), _before(y, grid.heights)
    frame = torch.arange(n, device=bordered.device, dtype=torch.int32).view(-1, 1, 1, 1) * (grid.cells * heads)
    first = row * grid.pitch + (column * heads + (grid.start + frame))
    of_row = of_row * rearrange(weights, "n m k l p -> n m k 1 (l p)")
    shares = of_row[..., :, None, :] * of_column[..., None, :, :]
    bags = F.embedding_bag(
        rearrange(first[..., None, :] + grid.corners, "n m k corner lp -> (n m k) (corner lp)"),
        bordered.flatten(0, 2),
        per_sample_weights=rearrange(shares, "n m k y x lp -> (n m k) (y x lp)").to(bordered.dtype),
        mode="sum",
    )
    return rearrange(bags, "(n m k) d -> n m (k d)", n=n, k=heads)


def _before(
    location: Float[Tensor, "n m k lp"], length: Int[Tensor, " lp"]
) -> tuple[Int[Tensor, "n m k lp"], Float[Tensor, "n m k 2 lp"]]:
    """Returns the cell before each location on an axis, and the shares of that cell and the next.

    Behind the border all is zero: a location is moved to where it reads only that.
    """
    position = (location * length - 0.5).clamp(min=-1).minimum(length)
    low = position.floor().nan_to_num_(nan=-1.0)  # a location that is no number reads something, with a share of NaN
    part = position - low
    return low.int(), torch.stack((1 - part, part), dim=-2)


def _bordered(values: Float[Tensor, "n s k d"], shapes: Shapes) -> Float[Tensor, "n cells k d"]:
    """Puts a border of zeros around each level."""
    bordered = values.new_zeros(len(values), _bordered_cells(shapes), *values.shape[2:])
    first = 0
    for level, (h, w) in zip(values.split([h * w for h, w in shapes], dim=1), shapes, strict=True):
        after = first + (h + 2) * (w + 2)
        bordered[:, first:after].unflatten(1, (h + 2, w + 2))[:, 1:-1, 1:-1] = level.unflatten(1, (h, w))
        first = after
    return bordered


def _bordered_cells(shapes: Shapes) -> int:
    """Returns the number of cells of all levels with their borders, and of the cells read behind the last of them."""
    return sum((h + 2) * (w + 2) for h, w in shapes) + max(w for _, w in shapes) + 3


@dataclass(frozen=True, slots=True)
class _BorderedGrid:
    """The levels of a frame, each with a border of zeros, as rows of one matrix: a row for each cell and head.

    One cell before and one behind each axis are enough: the cell after the border of a row is the border of the next.
    """

    cells: int
    sizes: Int[Tensor, "l 1 2"]  # width, height of each level
    widths: Int[Tensor, " lp"]  # of the level of each sample of a head
    heights: Int[Tensor, " lp"]
    start: Int[Tensor, "k lp"]  # row of cell (0, 0) of the level
    pitch: Int[Tensor, " lp"]  # rows between two cells of a column
    corners: Int[Tensor, "4 lp"]  # rows from a cell to itself, its right, its lower, and its lower right neighbour


@lru_cache(maxsize=64)
def _bordered_grid(shapes: tuple[tuple[int, int], ...], heads: int, points: int, device: torch.device) -> _BorderedGrid:
    starts, first = [], 0
    for h, w in shapes:
        starts.append((first + w + 2 + 1) * heads)
        first += (h + 2) * (w + 2)
    each = partial(np.repeat, repeats=points)
    widths, heights = each([w for _, w in shapes]), each([h for h, _ in shapes])
    pitch = (widths + 2) * heads
    with torch.inference_mode(False):  # whoever computes it first may not be who needs it next
        whole = partial(torch.tensor, dtype=torch.int32, device=device)
        return _BorderedGrid(
            cells=_bordered_cells(shapes),
            sizes=whole([[[w, h]] for h, w in shapes]),
            widths=whole(widths),
            heights=whole(heights),
            start=whole(each(starts) + np.arange(heads)[:, None]),
            pitch=whole(pitch),
            corners=whole(np.stack((0 * pitch, 0 * pitch + heads, pitch, pitch + heads))),
        )


class DeformableAttention(nn.Module):
    """Attention of each query to a few points around its reference, on every level (spec 6).

    Where products are in bfloat16, locations and weights are in float32 all the same; float16 is used for nothing.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self._reset()

    def _reset(self) -> None:
        """Initialises the offsets of heads in evenly spread directions, each point further away (spec 10)."""
        angles = 2 * math.pi * torch.arange(self.heads, dtype=torch.float32) / self.heads
        direction = torch.stack((angles.cos(), angles.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = direction[:, None, None] * steps[None, None, :, None]
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        for linear in (self.weights, self.value, self.output):
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.weights.weight)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.output.weight)

    def sampling(
        self, query: Float[Tensor, "n m c"], references: Float[Tensor, "n m l r"], shapes: Shapes
    ) -> tuple[Float[Tensor, "n m k l p 2"], Float[Tensor, "n m k l p"]]:
        """Returns the sample locations of each head on each level (xy in units of the level), and their weights."""
        axes = {"k": self.heads, "l": self.levels, "p": self.points}
        offsets = rearrange(self.offsets(query).float(), "n m (k l p xy) -> n m k l p xy", **axes, xy=2)
        weights = self.weights(query).float().unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        if references.shape[-1] == 2:
            scaled = offsets / _bordered_grid(tuple(shapes), self.heads, self.points, query.device).sizes
        else:
            scaled = offsets / self.points * rearrange(references[..., 2:], "n m l wh -> n m 1 l 1 wh") * 0.5
        centres = rearrange(references[..., :2], "n m l xy -> n m 1 l 1 xy")
        return centres + scaled, rearrange(weights, "n m k (l p) -> n m k l p", **axes)

    def forward(
        self,
        query: Float[Tensor, "n m c"],
        references: Float[Tensor, "n m l r"],
        cells: Float[Tensor, "n s c"],
        shapes: Shapes,
        padding: Bool[Tensor, "n s"],
    ) -> Float[Tensor, "n m c"]:
        """Attends from m queries to the s cells of all levels.

        Args:
            query: state plus position of each query.
            references: reference of each query per level, xy (r=2) or cxcywh (r=4), in units of the padded level.
            cells: cells of all levels, row-major and concatenated.
            shapes: (height, width) of each level.
            padding: True for cells whose value, including the bias, is set to zero.
        """
        return self.read(self.values(cells, padding), query, references, shapes)

    def values(self, cells: Float[Tensor, "n s c"], padding: Bool[Tensor, "n s"]) -> Float[Tensor, "n s k d"]:
        """Returns what each head reads in each cell."""
        with without_float16(cells.device):
            values = self.value(cells.float())
            return values.masked_fill(padding[..., None], 0).unflatten(-1, (self.heads, -1))

    def read(
        self,
        values: Float[Tensor, "n s k d"],
        query: Float[Tensor, "n m c"],
        references: Float[Tensor, "n m l r"],
        shapes: Shapes,
    ) -> Float[Tensor, "n m c"]:
        """Does what `forward` does, with values that are computed."""
        with without_float16(query.device):
            sample = bilinear_sampler(values, shapes)

            def attend(query: Tensor, references: Tensor) -> Tensor:
                return self.output(sample(*self.sampling(query.float(), references.float(), shapes)))

            return in_parts(attend, query, references)


def in_parts(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Applies what treats every cell of axis 1 for itself, to a few cells at a time where that saves memory traffic.

    On a CPU without gradients: what is stored between the operations is then small enough for its cache. A GPU wants
    much work at once, and autograd stores all of it anyway.
    """
    cells = inputs[0].shape[1]
    if inputs[0].device.type != "cpu" or torch.is_grad_enabled() or cells <= CPU_PART:
        return function(*inputs)
    return torch.cat([function(*part) for part in zip(*(x.split(CPU_PART, dim=1) for x in inputs), strict=True)], dim=1)
