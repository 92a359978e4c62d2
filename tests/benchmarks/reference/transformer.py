"""The deformable transformer as it is usually written: a `grid_sample` a level, samples stored, all in float32."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from sgmg.boxes import inverse_sigmoid
from sgmg.deformable_attention import DeformableAttention, Shapes
from sgmg.precision import without_autocast
from sgmg.transformer import DecoderLayer, DeformableTransformer, EncoderLayer, cell_references, valid_ratios


def encoded(
    transformer: DeformableTransformer,
    levels: Sequence[Tensor],
    positions: Sequence[Tensor],
    paddings: Sequence[Tensor],
) -> tuple[Tensor, Shapes, Tensor, Tensor]:
    """Returns the cells after the encoder, the shapes of the levels, the padding, and the valid ratios."""
    shapes = [(level.shape[2], level.shape[3]) for level in levels]
    cells = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
    embedded = torch.cat(
        [
            position.flatten(2).transpose(1, 2) + embedding
            for position, embedding in zip(positions, transformer.level_embedding, strict=True)
        ],
        dim=1,
    )
    padding = torch.cat([mask.flatten(1) for mask in paddings], dim=1)
    ratios = valid_ratios(paddings)
    references = cell_references(shapes, ratios)
    for layer in transformer.encoder:
        assert isinstance(layer, EncoderLayer)
        read = _deformable(layer.attention, cells + embedded, references, cells, shapes, padding)
        cells = _fed_forward(layer, layer.norm(cells + layer.dropout(read)))
    return cells, shapes, padding, ratios


def decoded(
    transformer: DeformableTransformer,
    queries: Tensor,
    sentence: Tensor,
    encoding: tuple[Tensor, Shapes, Tensor, Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the states (n q c) and the boxes (n q 4) of every layer."""
    cells, shapes, padding, ratios = encoding
    state = repeat(sentence, "n c -> n q c", q=len(queries))
    positions = queries.expand(len(cells), -1, -1)
    reference = transformer.reference(positions).float().sigmoid()
    states, boxes = [], []
    for layer, head in zip(transformer.decoder, transformer.box_heads, strict=True):
        assert isinstance(layer, DecoderLayer)
        query = state + positions
        state = layer.self_norm(state + layer.dropout(layer.self_attention(query, query, state)[0]))
        seen = reference[:, :, None] * torch.cat([ratios] * (reference.shape[-1] // 2), dim=-1)[:, None]
        read = _deformable(layer.cross_attention, state + positions, seen, cells, shapes, padding)
        state = _fed_forward(layer, layer.cross_norm(state + layer.dropout(read)))
        delta = head(state).float()
        known = reference.shape[-1]
        box = torch.cat((delta[..., :known] + inverse_sigmoid(reference), delta[..., known:]), dim=-1).sigmoid()
        reference = box.detach()
        states.append(state)
        boxes.append(box)
    return states, boxes


def _fed_forward(layer: EncoderLayer | DecoderLayer, x: Tensor) -> Tensor:
    ffn = layer.ffn
    return ffn.norm(x + ffn.dropout(ffn.narrow(ffn.dropout(F.relu(ffn.widen(x))))))


def _deformable(
    attention: DeformableAttention,
    query: Tensor,
    references: Tensor,
    cells: Tensor,
    shapes: Shapes,
    padding: Tensor,
) -> Tensor:
    with without_autocast(query.device):
        locations, weights = attention.sampling(query.float(), references.float(), shapes)
        values = attention.value(cells.float()).masked_fill(padding[..., None], 0)
        grids = 2 * locations - 1
        samples = []
        for level, (part, (h, w)) in enumerate(
            zip(values.split([h * w for h, w in shapes], dim=1), shapes, strict=True)
        ):
            image = rearrange(part, "n (h w) (k d) -> (n k) d h w", h=h, w=w, k=attention.heads).contiguous()
            grid = rearrange(grids[:, :, :, level], "n m k p xy -> (n k) m p xy")
            samples.append(F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        shares = rearrange(weights, "n m k l p -> (n k) 1 m (l p)")
        read = (torch.stack(samples, dim=-2).flatten(-2) * shares).sum(-1)
        return attention.output(rearrange(read, "(n k) d m -> n m (k d)", k=attention.heads).contiguous())
