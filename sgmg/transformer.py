"""Deformable transformer: an encoder of pixel features per frame, and a decoder with a few queries (paper 3.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sgmg.boxes import inverse_sigmoid
from sgmg.deformable_attention import DeformableAttention, Shapes, in_parts
from sgmg.precision import in_float32, without_autocast


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairs[:-1])
        self.last = nn.Linear(*pairs[-1])

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.last(x)


class FeedForward(nn.Module):
    """Two linear layers with ReLU and dropout, a residual, and LayerNorm."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n m c"]) -> Float[Tensor, "n m c"]:
        return in_parts(self._forward, x)

    def _forward(self, x: Float[Tensor, "n m c"]) -> Float[Tensor, "n m c"]:
        return self.norm(x + self.dropout(self.narrow(self.dropout(self.widen(x).relu_()))))


class EncoderLayer(nn.Module):
    """Deformable self-attention among the cells of all levels of a frame, and a feed-forward layer."""

    def __init__(self, channels: int, heads: int, levels: int, points: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, heads, levels, points)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForward(channels, ffn, dropout)

    def forward(
        self,
        cells: Float[Tensor, "n s c"],
        positions: Float[Tensor, "n s c"],
        references: Float[Tensor, "n s l 2"],
        shapes: Shapes,
        padding: Bool[Tensor, "n s"],
    ) -> Float[Tensor, "n s c"]:
        read = self.attention(cells + positions, references, cells, shapes, padding)
        return self.ffn(self.norm(cells + self.dropout(read)))


class DecoderLayer(nn.Module):
    """Self-attention among the queries of a frame, deformable attention to its cells, and a feed-forward layer.

    Queries are few, and which of them is chosen hangs on small differences: they stay in float32, whatever is chosen
    for the products of the cells.
    """

    def __init__(self, channels: int, heads: int, levels: int, points: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(channels, heads, dropout=dropout, batch_first=True)
        self.self_norm = nn.LayerNorm(channels)
        self.cross_attention = DeformableAttention(channels, heads, levels, points)
        self.cross_norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForward(channels, ffn, dropout)

    def forward(
        self,
        state: Float[Tensor, "n q c"],
        positions: Float[Tensor, "n q c"],
        references: Float[Tensor, "n q l r"],
        cells: Float[Tensor, "n s c"],
        shapes: Shapes,
        padding: Bool[Tensor, "n s"],
    ) -> Float[Tensor, "n q c"]:
        values = self.cross_attention.values(cells, padding)
        with without_autocast(cells.device):
            query = state + positions
            attended, _ = self.self_attention(query, query, state, need_weights=False)
            state = self.self_norm(state + self.dropout(attended))
            read = self.cross_attention.read(values.float(), state + positions, references, shapes)
            return self.ffn(self.cross_norm(state + self.dropout(read)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Output of the encoder for n frames: the s cells of all levels, row-major and joined."""

    cells: Float[Tensor, "n s c"]
    padding: Bool[Tensor, "n s"]
    ratios: Float[Tensor, "n l 2"]  # of `valid_ratios`
    shapes: tuple[tuple[int, int], ...]  # (height, width) of each level

    @property
    def levels(self) -> tuple[Float[Tensor, "n c _ _"], ...]:
        """Cells of each level as a picture."""
        parts = self.cells.split([h * w for h, w in self.shapes], dim=1)
        return tuple(
            rearrange(part, "n (h w) c -> n c h w", h=h, w=w) for part, (h, w) in zip(parts, self.shapes, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """Outputs of the transformer for n frames; l decoder layers, from first to last."""

    memory: tuple[Float[Tensor, "n c _ _"], ...]  # the encoded levels
    states: Float[Tensor, "l n q c"]
    boxes: Float[Tensor, "l n q 4"]  # cxcywh in units of the unpadded frame
    initial_reference: Float[Tensor, "n q 2"]
    references: Float[Tensor, "l n q r"]  # after each layer, detached; without refinement always the initial one

    @property
    def reference_points(self) -> Float[Tensor, "l n q 2"]:
        """xy of the reference that each layer starts from."""
        return torch.cat((self.initial_reference[None], self.references[:-1, ..., :2]))


def valid_ratios(paddings: Sequence[Bool[Tensor, "n _ _"]]) -> Float[Tensor, "n l 2"]:
    """Returns the share of each level, as (x, y), that is not padding."""
    ratios = [
        torch.stack(((~padding[:, 0]).float().mean(dim=1), (~padding[:, :, 0]).float().mean(dim=1)), dim=-1)
        for padding in paddings
    ]
    return torch.stack(ratios, dim=1)


def cell_references(shapes: Shapes, ratios: Float[Tensor, "n l 2"]) -> Float[Tensor, "n s l 2"]:
    """Returns the centre of every cell, as xy in units of each padded level (spec 6)."""
    centres, level = _cell_centres(tuple(shapes), ratios.device)
    return (centres.to(ratios.dtype) / ratios[:, level])[:, :, None] * ratios[:, None]


@lru_cache(maxsize=64)
def _cell_centres(
    shapes: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[Float[Tensor, "s 2"], Int[Tensor, " s"]]:
    """Returns the centre of every cell, as xy in units of its padded level, and the number of that level."""
    with torch.inference_mode(False):
        rows = np.concatenate([np.indices(shape).reshape(2, -1).T for shape in shapes])
        cells = [h * w for h, w in shapes]
        sizes = np.repeat(np.array(shapes), cells, axis=0)
        centres = ((rows + 0.5) / sizes)[:, ::-1].copy()
        level = np.repeat(np.arange(len(shapes)), cells)
        return torch.from_numpy(centres).to(device), torch.from_numpy(level).to(device)


class DeformableTransformer(nn.Module):
    """Encoder over all levels, and decoder of q queries per frame with box refinement. Frames are independent."""

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        levels: int,
        points: int,
        ffn: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
        refine_boxes: bool,
    ) -> None:
        super().__init__()
        sizes = (channels, heads, levels, points, ffn, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        self.box_heads = nn.ModuleList(
            MLP(channels, channels, channels, 4) for _ in range(decoder_layers if refine_boxes else 1)
        )
        self.level_embedding = nn.Parameter(torch.empty(levels, channels))
        self.reference = nn.Linear(channels, 2)
        self.refine_boxes = refine_boxes
        self._reset()

    def _reset(self) -> None:
        """Initialises matrices by Xavier, and box heads so that boxes start small at their reference (spec 10).

        The hidden layers of the box heads keep PyTorch's default, like other layers outside encoder and decoder.
        """
        for layers in (self.encoder, self.decoder):
            for name, weight in layers.named_parameters():
                if weight.dim() > 1 and not name.endswith(("offsets.weight", "attention.weights.weight")):
                    nn.init.xavier_uniform_(weight)
        nn.init.normal_(self.level_embedding)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)
        for index, head in enumerate(self.box_heads):
            assert isinstance(head, MLP)
            nn.init.zeros_(head.last.weight)
            nn.init.zeros_(head.last.bias)
            if index == 0:
                nn.init.constant_(head.last.bias[2:], -2.0)

    def forward(
        self,
        levels: Sequence[Float[Tensor, "m c _ _"]],
        positions: Sequence[Float[Tensor, "m c _ _"]],
        paddings: Sequence[Bool[Tensor, "m _ _"]],
        sentence_feature: Float[Tensor, "n c"],
        query_positions: Float[Tensor, "q c"],
        decouple: Callable[[Memory], Memory] | None = None,
    ) -> Decoded:
        """Encodes and decodes n frames, one row per frame and expression.

        With `decouple`, the levels have a row for each frame of a clip, which expressions share; it returns the memory
        of each expression.
        """
        memory = self.encode(levels, positions, paddings)
        return self.decode(decouple(memory) if decouple else memory, sentence_feature, query_positions)

    def encode(
        self,
        levels: Sequence[Float[Tensor, "n c _ _"]],
        positions: Sequence[Float[Tensor, "n c _ _"]],
        paddings: Sequence[Bool[Tensor, "n _ _"]],
    ) -> Memory:
        """Encodes n frames."""
        shapes = tuple((level.shape[2], level.shape[3]) for level in levels)
        ratios = valid_ratios(paddings)
        padding = torch.cat([mask.flatten(1) for mask in paddings], dim=1)
        cells = torch.cat([rearrange(level, "n c h w -> n (h w) c") for level in levels], dim=1)
        embedded = torch.cat(
            [
                rearrange(position, "n c h w -> n (h w) c") + embedding
                for position, embedding in zip(positions, self.level_embedding, strict=True)
            ],
            dim=1,
        )
        references = cell_references(shapes, ratios)
        for layer in self.encoder:
            cells = layer(cells, embedded, references, shapes, padding)
        return Memory(cells, padding, ratios, shapes)

    def decode(
        self, memory: Memory, sentence_feature: Float[Tensor, "n c"], query_positions: Float[Tensor, "q c"]
    ) -> Decoded:
        """Decodes n encoded frames, each for one expression."""
        q = len(query_positions)
        state = repeat(sentence_feature.float(), "n c -> n q c", q=q)
        positions = query_positions.expand(len(memory.cells), -1, -1)
        initial = in_float32(self.reference, positions).sigmoid()
        reference, states, boxes, moved = initial, [], [], []
        for index, layer in enumerate(self.decoder):
            scale = memory.ratios.repeat(1, 1, reference.shape[-1] // 2)
            references = reference[:, :, None] * scale[:, None]
            state = layer(state, positions, references, memory.cells, memory.shapes, memory.padding)
            head = self.box_heads[index if self.refine_boxes else 0]
            box = _shifted(in_float32(head, state), reference).sigmoid()
            if self.refine_boxes:
                # Detached: the loss of a layer's box does not reach the layers before it.
                reference = box.detach()
            states.append(state)
            boxes.append(box)
            moved.append(reference)
        return Decoded(memory.levels, torch.stack(states), torch.stack(boxes), initial, torch.stack(moved))


def _shifted(delta: Float[Tensor, "n q 4"], reference: Float[Tensor, "n q r"]) -> Float[Tensor, "n q 4"]:
    """Returns box logits: the head's output plus the logits of the reference (xy or cxcywh)."""
    known = reference.shape[-1]
    return torch.cat((delta[..., :known] + inverse_sigmoid(reference), delta[..., known:]), dim=-1)
