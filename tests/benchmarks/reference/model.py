"""What the published implementation does for a sentence, over our weights: that is what our speed is compared with.

A whole forward pass a sentence, nothing shared between sentences; attention with a stored softmax; deformable attention
by `grid_sample`; masks of every decoder layer and query, of which one is refined (in training, one of each layer).
Written from the specification; `tests/test_reference.py` checks that it gives our numbers and gradients, and that its
products are, part by part, those of the published code.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from reference import swin, transformer
from torch import Tensor

from sgmg.backbones.video_swin import VideoSwin
from sgmg.batch import TextFeatures
from sgmg.fusion import LanguageFusion
from sgmg.model import SgMg
from sgmg.patch_kernels import KERNELS, PATCH, relative_coordinates
from sgmg.positions import pixel_positions
from sgmg.precision import without_autocast
from sgmg.preprocess import resize_padding
from sgmg.refine import RefineStep
from sgmg.spectrum import SpectrumFilter, gaussian, resize_attenuation


class Drawn(NamedTuple):
    """All that a forward pass computes for a sentence in t frames."""

    scores: Tensor  # l t q, logits
    boxes: Tensor  # l t q 4, cxcywh in units of the frame
    masks: list[Tensor]  # for each layer t q p h w: patch masks at 1/8
    features: list[Tensor]  # the four outputs of the backbone, t c h w


class Segmented(NamedTuple):
    """What a sentence gets in t frames."""

    scores: Tensor  # l t q, logits
    boxes: Tensor  # l t q 4, cxcywh in units of the frame
    masks: Tensor  # t h w, logits of the best query


def segment(
    model: SgMg, frames: Tensor, padding: Tensor, size: tuple[int, int], token_ids: Tensor, token_padding: Tensor
) -> Segmented:
    """Segments one clip by one sentence; arguments as in `draw`."""
    drawn = draw(model, frames, padding, size, token_ids, token_padding)
    query = drawn.scores[-1].sigmoid().mean(dim=0).argmax()
    chosen = drawn.masks[-1].index_select(1, query[None])[:, 0]
    return Segmented(drawn.scores, drawn.boxes, refined(model, chosen, drawn.features))


def draw(
    model: SgMg, frames: Tensor, padding: Tensor, size: tuple[int, int], token_ids: Tensor, token_padding: Tensor
) -> Drawn:
    """Draws the masks of all layers and queries for one sentence (1 n).

    Args:
        model: a model with a video backbone that refines boxes.
        frames, padding: one clip (1 t 3 h w), as `SgMg.encode_video` takes it; sides of at least 129 pixels, multiples
            of 4.
        size: (height, width) of the clip before padding.
        token_ids, token_padding: as `SgMg.encode_text` takes them.
    """
    assert isinstance(model.backbone, VideoSwin)
    features = swin.features(model.backbone, frames)
    text = encoded_text(model, token_ids, token_padding)
    levels, paddings, positions = _levels(model, features, padding, text)
    t = frames.shape[1]
    encoding = transformer.encoded(
        model.transformer,
        levels,
        [repeat(position, "1 c h w -> t c h w", t=t) for position in positions],
        [repeat(mask, "1 h w -> t h w", t=t) for mask in paddings],
    )
    sentence = repeat(text.sentence_feature, "1 c -> t c", t=t)
    states, boxes = transformer.decoded(model.transformer, model.query_positions, sentence, encoding)
    scores = torch.stack([head(state)[..., 0].float() for head, state in zip(model.class_heads, states, strict=True)])
    masks = drawn_masks(model, encoding, states, boxes, torch.tensor([size] * t, device=frames.device))
    return Drawn(scores, torch.stack(boxes), masks, features)


def refined(model: SgMg, masks: Tensor, features: list[Tensor]) -> Tensor:
    """Returns mask logits at full size, t h w, of the patch masks (t p h w) of one query."""
    masks = _step(model.refinement.step_8, masks, features[1])
    masks = F.interpolate(masks, features[0].shape[-2:], mode="bilinear", align_corners=False)
    return F.pixel_shuffle(_step(model.refinement.step_4, masks, features[0]), PATCH)[:, 0]


def encoded_text(model: SgMg, token_ids: Tensor, token_padding: Tensor) -> TextFeatures:
    """Encodes a sentence anew each time, without the cache of a frozen encoder."""
    text = model.text
    with torch.set_grad_enabled(torch.is_grad_enabled() and not text.frozen):
        hidden, pooled = text.roberta(token_ids, token_padding)
    return text.resize(hidden, pooled, token_padding)


def _levels(
    model: SgMg, features: list[Tensor], padding: Tensor, text: TextFeatures
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Returns the four levels after both filters, with padding and positions."""
    levels, paddings, positions = [], [], []
    attenuation: Tensor | None = None
    filters = zip((*features[1:], features[-1]), model.projections, model.filters, model.fused_filters, strict=True)
    for feature, project, first, second in filters:
        level = project(feature)
        size = (level.shape[2], level.shape[3])
        attenuation = gaussian(*size, level.device) if attenuation is None else resize_attenuation(attenuation, size)
        level = filtered(first, level, attenuation)
        mask = resize_padding(padding, *size)
        levels.append(filtered(second, fused(model.fusion, level, text), attenuation))
        paddings.append(mask)
        positions.append(pixel_positions(mask, model.config.width))
    return levels, paddings, positions


def filtered(module: torch.nn.Module, x: Tensor, attenuation: Tensor) -> Tensor:
    assert isinstance(module, SpectrumFilter)
    with without_autocast(x.device):
        x = x.float()
        gate = module.gate(module.edges(x).mean(dim=(2, 3)))[..., None, None]
        spectrum = torch.fft.fft2(x) * (1 - gate * attenuation)
        mixed = module.mix(torch.cat((spectrum.real, spectrum.imag), dim=1))
        real, imaginary = mixed.chunk(2, dim=1)
        return x + torch.fft.ifft2(torch.complex(real.contiguous(), imaginary.contiguous())).real


def fused(fusion: LanguageFusion, pixels: Tensor, text: TextFeatures) -> Tensor:
    t, _, h, w = pixels.shape
    query = rearrange(pixels, "t c h w -> (t h w) 1 c").contiguous()
    keys, values = (rearrange(words, "1 n c -> n 1 c") for words in (text.words + text.positions, text.words))
    attended, _ = F.multi_head_attention_forward(
        query, keys, values, query.shape[-1], fusion.heads, fusion.in_proj.weight, fusion.in_proj.bias, None, None,
        False, 0.0, fusion.out_proj.weight, fusion.out_proj.bias, training=False, key_padding_mask=text.padding,
        need_weights=True,
    )  # fmt: skip
    return rearrange(query * attended, "(t h w) 1 c -> t c h w", t=t, h=h, w=w).contiguous()


def drawn_masks(model: SgMg, encoding: tuple, states: list[Tensor], boxes: list[Tensor], sizes: Tensor) -> list[Tensor]:
    """Returns the patch masks (t q p h w) of every layer: all queries of a frame are groups of one convolution."""
    cells, shapes, _, _ = encoding
    memory = [
        rearrange(part, "t (h w) c -> t c h w", h=h, w=w).contiguous()
        for part, (h, w) in zip(cells.split([h * w for h, w in shapes], dim=1), shapes, strict=True)
    ]
    features = memory[0]
    for level in memory[1:-1]:
        features = features + F.interpolate(level, shapes[0], mode="bicubic", align_corners=False)
    return [_layer_masks(model, features, state, box, sizes) for state, box in zip(states, boxes, strict=True)]


def _layer_masks(model: SgMg, features: Tensor, state: Tensor, box: Tensor, sizes: Tensor) -> Tensor:
    t, c, h, w = features.shape
    q = state.shape[1]
    offsets = relative_coordinates(box[..., :2].detach(), sizes, h, w)
    inputs = torch.cat((features[:, None].expand(-1, q, -1, -1, -1), offsets.to(features.dtype)), dim=2)
    parameters = model.kernel_head(state).flatten(0, 1)
    sides = [KERNELS * (c + 2), KERNELS * KERNELS, KERNELS, KERNELS]
    first, second, first_bias, second_bias = parameters.split(sides, dim=-1)
    x = rearrange(inputs, "t q c h w -> 1 (t q c) h w")
    for weight, bias, width, activated in ((first, first_bias, c + 2, True), (second, second_bias, KERNELS, False)):
        kernels = weight.reshape(t * q * KERNELS, width, 1, 1)
        x = F.conv2d(x, kernels, bias.flatten(), groups=t * q)
        x = F.relu(x) if activated else x
    return rearrange(x, "1 (t q p) h w -> t q p h w", t=t, q=q)


def _step(step: RefineStep, mask: Tensor, features: Tensor) -> Tensor:
    return mask + step.suggest(F.relu(step.join(F.relu(torch.cat((mask, features), dim=1)))))
