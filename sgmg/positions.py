"""Sine position embeddings of words and pixels."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from sgmg import vector_math

vector_math.settle()


def sine_embedding(angles: Float[Tensor, "*cells"], channels: int) -> Float[Tensor, "*cells c"]:
    """Returns features i: sin (even i) or cos (odd i) of angle / 10000^(2⌊i/2⌋/channels), in float32 (spec 2)."""
    pair = torch.arange(channels, device=angles.device, dtype=torch.float32) // 2
    phases = angles.float()[..., None] / 10000 ** (2 * pair / channels)
    return torch.stack((phases[..., 0::2].sin(), phases[..., 1::2].cos()), dim=-1).flatten(-2)


def word_positions(padding: Bool[Tensor, "e n"], channels: int) -> Float[Tensor, "e n {channels}"]:
    """Embeds the position of each word among the unpadded ones; the whole expression spans an angle of 2π (spec 2)."""
    count = (~padding).cumsum(dim=1, dtype=torch.float32)
    return sine_embedding(2 * math.pi * count / (count[:, -1:] + 1e-6), channels)


def pixel_positions(padding: Bool[Tensor, "b h w"], channels: int) -> Float[Tensor, "b {channels} h w"]:
    """Embeds the position of each cell in the unpadded part of its level, in channels for y, then x (spec 6).

    Parity: padded cells are embedded by the same formula, which influences the masks near them.
    """

    def embed(axis: int) -> Tensor:
        count = (~padding).cumsum(dim=axis, dtype=torch.float32)
        last = count.narrow(axis, count.shape[axis] - 1, 1)
        return sine_embedding((count - 0.5) / (last + 1e-6) * (2 * math.pi), channels // 2)

    return rearrange(torch.cat((embed(1), embed(2)), dim=-1), "b h w c -> b c h w")
