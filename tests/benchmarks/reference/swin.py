"""Video Swin as it is usually written: windows cut and put together in every block, attention with a stored softmax."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sgmg.backbones.video_swin import PATCH, Block, PatchMerging, VideoSwin
from sgmg.backbones.windows import Size, WindowAttention, WindowPlan


def features(backbone: VideoSwin, frames: Tensor) -> list[Tensor]:
    """Returns the outputs of the four stages, (b t) c h w, of frames b t 3 h w."""
    body = backbone.body
    b, _, _, h, w = frames.shape
    padded = F.pad(frames, (0, -w % PATCH, 0, -h % PATCH))
    x = body.patches(rearrange(padded, "b t c h w -> (b t) c h w"))
    x = body.patches_norm(rearrange(x, "(b t) c h w -> b t h w c", b=b))
    outputs = []
    for index, blocks in enumerate(body.stages):
        if index:
            x = _merged(body.mergings[index - 1], x)
        size = (x.shape[1], x.shape[2], x.shape[3])
        assert isinstance(blocks, nn.ModuleList)
        masks = _Masks(size, x.device)
        for block in blocks:
            assert isinstance(block, Block)
            x = _block(block, x, masks)
        outputs.append(rearrange(x, "b t h w c -> (b t) c h w").contiguous())
    return outputs


class _Masks:
    """The mask of each window of a stage; the blocks of the stage share it."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device = size, device
        self.made: dict[WindowPlan, Tensor] = {}

    def of(self, plan: WindowPlan) -> Tensor | None:
        """Returns (windows, n, n): -100 where two tokens come from different ends of the clip."""
        if not any(plan.shift):
            return None
        if plan not in self.made:
            padded = [length + more for length, more in zip(self.size, plan.padding(self.size), strict=True)]
            region = torch.zeros(1, *padded, 1, device=self.device)
            number = 0
            for t in _regions(padded[0], plan.window[0], plan.shift[0]):
                for h in _regions(padded[1], plan.window[1], plan.shift[1]):
                    for w in _regions(padded[2], plan.window[2], plan.shift[2]):
                        region[:, t, h, w] = number
                        number += 1
            cut = _cut(region, plan.window)[..., 0]
            self.made[plan] = (cut[:, :, None] != cut[:, None]) * -100.0
        return self.made[plan]


def _regions(length: int, window: int, shift: int) -> list[slice]:
    if not shift:
        return [slice(0, length)]
    return [slice(0, length - window), slice(length - window, length - shift), slice(length - shift, length)]


def _block(block: Block, x: Tensor, masks: _Masks) -> Tensor:
    size = (x.shape[1], x.shape[2], x.shape[3])
    plan = WindowPlan.of(size, block.full, shifted=block.shifted, shrink=block.shrink)
    pad_t, pad_h, pad_w = plan.padding(size)
    inner = F.pad(block.attention_norm(x), (0, 0, 0, pad_w, 0, pad_h, 0, pad_t))
    padded = inner.shape[1:4]
    if any(plan.shift):
        inner = inner.roll([-shift for shift in plan.shift], dims=(1, 2, 3))
    attended = _attended(block.attention, _cut(inner, plan.window), masks.of(plan), plan.window)
    inner = _joined(attended, plan.window, (padded[0], padded[1], padded[2]))
    if any(plan.shift):
        inner = inner.roll(plan.shift, dims=(1, 2, 3))
    x = x + block.drop_path(inner[:, : size[0], : size[1], : size[2]])
    return x + block.drop_path(block.mlp(block.mlp_norm(x)))


def _cut(x: Tensor, window: Size) -> Tensor:
    wt, wh, ww = window
    return rearrange(x, "b (gt wt) (gh wh) (gw ww) c -> (b gt gh gw) (wt wh ww) c", wt=wt, wh=wh, ww=ww).contiguous()


def _joined(windows: Tensor, window: Size, padded: Size) -> Tensor:
    (wt, wh, ww), (t, h, w) = window, padded
    return rearrange(
        windows, "(b gt gh gw) (wt wh ww) c -> b (gt wt) (gh wh) (gw ww) c",
        wt=wt, wh=wh, ww=ww, gt=t // wt, gh=h // wh, gw=w // ww,
    ).contiguous()  # fmt: skip


def _attended(attention: WindowAttention, windows: Tensor, mask: Tensor | None, window: Size) -> Tensor:
    tokens = window[0] * window[1] * window[2]
    query, key, value = rearrange(
        attention.qkv(windows), "b n (three k d) -> three b k n d", three=3, k=attention.heads
    ).unbind(0)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    index = attention.index[:tokens, :tokens].flatten()
    bias = rearrange(attention.position_bias[index], "(n m) k -> k n m", n=tokens).contiguous()
    logits = logits + bias
    if mask is not None:
        logits = (logits.unflatten(0, (-1, len(mask))) + mask[None, :, None].to(logits.dtype)).flatten(0, 1)
    out = logits.softmax(dim=-1).to(value.dtype) @ value
    return attention.output(rearrange(out, "b k n d -> b n (k d)"))


def _merged(merging: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(merging, PatchMerging)
    x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    parts = (x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2])
    return merging.reduce(merging.norm(torch.cat(parts, dim=-1)))
