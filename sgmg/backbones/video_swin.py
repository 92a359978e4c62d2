"""Video Swin (Liu et al. 2022) with patches of one frame, so that time is never downsampled."""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sgmg.backbones.windows import Size, WindowAttention, WindowPlan
from sgmg.config import SwinConfig

PATCH = 4
"""Side of a patch, in pixels."""


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a branch at random per row of the batch, and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, " b *c"]) -> Float[Tensor, " b *c"]:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype).view(-1, *(1 for _ in x.shape[1:]))


class Block(nn.Module):
    """Window attention and an MLP, each with a norm before it and a residual.

    Drop path acts per branch and row of the batch: a clip in Video Swin, a frame in Swin.
    """

    def __init__(self, dim: int, heads: int, full: Size, *, shifted: bool, shrink: bool, drop_path: float) -> None:
        super().__init__()
        self.full, self.shifted, self.shrink = full, shifted, shrink
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, full)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        x = x + self.drop_path(self._attend(self.attention_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))

    def _attend(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        size = (x.shape[1], x.shape[2], x.shape[3])
        return self.attention(x, WindowPlan.of(size, self.full, shifted=self.shifted, shrink=self.shrink))


class PatchMerging(nn.Module):
    """Halves rows and columns: four neighbours become one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h2 w2 c2"]:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.reduce(self.norm(rearrange(x, "b t (h dh) (w dw) c -> b t h w (dw dh c)", dh=2, dw=2)))


class SwinStages(nn.Module):
    """Patch embedding and four stages of blocks with merging in between, shared by Video Swin and Swin."""

    def __init__(self, config: SwinConfig, *, activation_checkpointing: bool) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.patches = nn.Conv2d(3, config.dim, PATCH, stride=PATCH)
        self.patches_norm = nn.LayerNorm(config.dim)
        blocks = sum(config.depths)
        rates = iter([config.drop_path * index / (blocks - 1) for index in range(blocks)])
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(
                    channels,
                    heads,
                    config.window,
                    shifted=index % 2 == 1,
                    shrink=config.video,
                    drop_path=next(rates),
                )
                for index in range(depth)
            )
            for channels, depth, heads in zip(config.channels, config.depths, config.heads, strict=True)
        )
        self.mergings = nn.ModuleList(PatchMerging(channels) for channels, _ in pairwise(config.channels))

    def features(self, frames: Float[Tensor, "b t 3 h w"]) -> Iterator[Float[Tensor, "b t h w c"]]:
        """Yields the output of each stage before merging, finest first."""
        b, _, _, h, w = frames.shape
        padded = F.pad(frames, (0, -w % PATCH, 0, -h % PATCH))
        x = self.patches(rearrange(padded, "b t c h w -> (b t) c h w"))
        x = self.patches_norm(rearrange(x, "(b t) c h w -> b t h w c", b=b))
        for index, blocks in enumerate(self.stages):
            if index:
                x = self.mergings[index - 1](x)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                if self.activation_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            yield x


class VideoSwin(nn.Module):
    """Backbone for clips, with attention across frames and features at 1/4, 1/8, 1/16 and 1/32 (spec 3)."""

    def __init__(self, config: SwinConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.body = SwinStages(config, activation_checkpointing=activation_checkpointing)

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> tuple[Float[Tensor, "b t _ _ _"], ...]:
        return tuple(rearrange(x, "b t h w c -> b t c h w") for x in self.body.features(frames))
