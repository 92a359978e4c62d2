"""Multi-scale deformable attention (Zhu et al. 2021) in plain PyTorch, without a compiled extension."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Shapes = Sequence[tuple[int, int]]
"""(height, width) of each level, in cells."""


def sample_bilinear(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Returns the weighted sum of bilinear samples over levels and points, for every head; zeros outside a level.

    Samples are stored only if a gradient is needed, which makes the backward pass fast.

    Args:
        values: s cells of all levels, row-major and joined; k heads of d channels.
        shapes: (height, width) of each level.
        locations: xy in units of the level, 0 at the outer edge of the first cell and 1 at that of the last.
        weights: weight of each sample.
    """
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (values, locations, weights))
    return (_sample_levels if learns else _sample_bags)(values, shapes, locations, weights)


def _sample_levels(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Samples level by level with `grid_sample`."""
    levels = values.split([h * w for h, w in shapes], dim=1)
    grids = rearrange(2 * locations - 1, "n m k l p xy -> l (n k) m p xy")
    shares = rearrange(weights, "n m k l p -> l (n k) m p")
    total = torch.zeros((), device=values.device)
    for level, (h, _), grid, share in zip(levels, shapes, grids, shares, strict=True):
        image = rearrange(level, "n (h w) k d -> (n k) d h w", h=h)
        samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        total = total + torch.einsum("bdmp,bmp->bdm", samples, share)
    return rearrange(total, "(n k) d m -> n m (k d)", n=len(values))


def _sample_bags(
    values: Float[Tensor, "n s k d"],
    shapes: Shapes,
    locations: Float[Tensor, "n m k l p 2"],
    weights: Float[Tensor, "n m k l p"],
) -> Float[Tensor, "n m k*d"]:
    """Samples all levels at once: a bilinear sample is four weighted rows, so a head reads one weighted bag of rows."""
    n, s, heads, _ = values.shape
    points = weights.shape[-1]

    def each_sample(of_level: list[int]) -> Int[Tensor, " klp"]:
        levels = torch.tensor(of_level, device=values.device, dtype=torch.int32)
        return levels.repeat_interleave(points).repeat(heads)

    height, width = each_sample([h for h, _ in shapes]), each_sample([w for _, w in shapes])
    start = each_sample([0, *itertools.accumulate(h * w for h, w in shapes[:-1])])
    head = torch.arange(heads, device=values.device, dtype=torch.int32).repeat_interleave(len(shapes) * points)
    frame = torch.arange(n, device=values.device, dtype=torch.int32)[:, None, None] * s

    # A row of the joined values is ((frame * s + start + y * width + x) * heads + head): its y part and its x part.
    y_parts = [
        (y * (width * heads) + (frame + start) * heads, share * weights.flatten(2))
        for y, share in _neighbours(locations[..., 1].flatten(2), height)
    ]
    x_parts = [(x * heads + head, share) for x, share in _neighbours(locations[..., 0].flatten(2), width)]
    corners = [(y + x, share_y * share_x) for y, share_y in y_parts for x, share_x in x_parts]
    rows, shares = (
        torch.stack([part.unflatten(-1, (heads, -1)) for part in parts], dim=3).flatten(0, 2).flatten(1)
        for parts in zip(*corners, strict=True)
    )
    bags = F.embedding_bag(rows, values.flatten(0, 2), per_sample_weights=shares, mode="sum")
    return rearrange(bags, "(n m k) d -> n m (k d)", n=n, k=heads)


def _neighbours(
    location: Float[Tensor, "n m klp"], length: Int[Tensor, " klp"]
) -> list[tuple[Int[Tensor, "n m klp"], Float[Tensor, "n m klp"]]]:
    """Returns the two cells of an axis around a location, and the share of each; cells outside have share 0."""
    position = location * length - 0.5
    low = position.floor()
    part = position - low
    neighbours = []
    for cell, share in ((low, 1 - part), (low + 1, part)):
        inside = cell.clamp(min=0).minimum(length - 1)
        neighbours.append((inside.int(), share * (inside == cell)))
    return neighbours


class DeformableAttention(nn.Module):
    """Attention of each query to a few points around its reference, on every level; always in float32 (spec 6)."""

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
        offsets = rearrange(self.offsets(query), "n m (k l p xy) -> n m k l p xy", **axes, xy=2)
        weights = self.weights(query).unflatten(-1, (self.heads, -1)).softmax(dim=-1)
        if references.shape[-1] == 2:
            sizes = torch.tensor([[w, h] for h, w in shapes], device=query.device, dtype=query.dtype)
            scaled = offsets / rearrange(sizes, "l wh -> l 1 wh")
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
        with torch.autocast(query.device.type, enabled=False):
            locations, weights = self.sampling(query.float(), references.float(), shapes)
            values = self.value(cells.float()).masked_fill(padding[..., None], 0)
            values = rearrange(values, "n s (k d) -> n s k d", k=self.heads)
            return self.output(sample_bilinear(values, shapes, locations, weights))
