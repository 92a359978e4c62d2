import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sgmg.boxes import inverse_sigmoid
from sgmg.transformer import (
    MLP,
    Decoded,
    DecoderLayer,
    DeformableTransformer,
    EncoderLayer,
    FeedForward,
    cell_references,
    valid_ratios,
)

CHANNELS, HEADS, POINTS, FFN, QUERIES, LAYERS = 16, 8, 2, 24, 3, 2
SHAPES = [(4, 6), (2, 3)]
CELLS = sum(h * w for h, w in SHAPES)
SIZES = (CHANNELS, HEADS, len(SHAPES), POINTS, FFN)


def shaken(module: nn.Module, std: float = 0.3) -> None:
    """Moves every parameter off its initial value: nothing is zero any more."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=std)


def a_transformer(
    *, channels: int = CHANNELS, refine_boxes: bool = True, dropout: float = 0.0
) -> DeformableTransformer:
    return DeformableTransformer(
        channels=channels,
        heads=HEADS,
        levels=len(SHAPES),
        points=POINTS,
        ffn=FFN,
        encoder_layers=1,
        decoder_layers=LAYERS,
        dropout=dropout,
        refine_boxes=refine_boxes,
    )


def corners(rows_and_columns: list[tuple[int, int]], height: int, width: int) -> Tensor:
    """Paddings of frames whose unpadded parts have those sides."""
    padding = torch.ones(len(rows_and_columns), height, width, dtype=torch.bool)
    for mask, (rows, columns) in zip(padding, rows_and_columns, strict=True):
        mask[:rows, :columns] = False
    return padding


def frames(n: int) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """What the transformer takes: n frames, the first of them padded."""
    levels = [torch.randn(n, CHANNELS, h, w) for h, w in SHAPES]
    positions = [torch.randn(n, CHANNELS, h, w) for h, w in SHAPES]
    paddings = [corners([(h - 1, w - 1), *[(h, w)] * (n - 1)], h, w) for h, w in SHAPES]
    return levels, positions, paddings, torch.randn(n, CHANNELS), torch.randn(QUERIES, CHANNELS)


def heads_of(transformer: DeformableTransformer) -> list[MLP]:
    return [head for head in transformer.box_heads if isinstance(head, MLP)]


@pytest.mark.usefixtures("in_float64")
def test_valid_ratios_are_the_unpadded_shares_of_first_row_and_first_column() -> None:
    ratios = valid_ratios([corners([(2, 5), (4, 3)], 4, 6), corners([(1, 3), (2, 1)], 2, 3)])
    expected = torch.tensor([[[5 / 6, 2 / 4], [3 / 3, 1 / 2]], [[3 / 6, 4 / 4], [1 / 3, 2 / 2]]])
    torch.testing.assert_close(ratios, expected)


@pytest.mark.usefixtures("in_float64")
def test_a_cell_refers_to_its_own_centre_on_every_level() -> None:
    ratios = torch.tensor([[[0.5, 0.75], [2 / 3, 1.0]]])
    references = cell_references(SHAPES, ratios)
    cell = 0
    for level, (h, w) in enumerate(SHAPES):
        for i in range(h):
            for j in range(w):
                p = torch.tensor([(j + 0.5) / w, (i + 0.5) / h]) / ratios[0, level]
                torch.testing.assert_close(references[0, cell], p * ratios[0])
                cell += 1


@pytest.mark.usefixtures("in_float64")
def test_an_mlp_has_relu_between_its_layers_and_none_at_the_end() -> None:
    mlp, x = MLP(4, 6, 5, 2), torch.randn(3, 4)
    first, second = mlp.hidden
    torch.testing.assert_close(mlp(x), mlp.last(F.relu(second(F.relu(first(x))))))
    assert (mlp(torch.randn(99, 4)) < 0).any()


@pytest.mark.usefixtures("in_float64")
def test_the_feed_forward_adds_before_it_normalizes() -> None:
    ffn, x = FeedForward(CHANNELS, FFN, dropout=0.0), torch.randn(2, 5, CHANNELS)
    shaken(ffn)
    wide = F.relu(F.linear(x, ffn.widen.weight, ffn.widen.bias))
    summed = x + F.linear(wide, ffn.narrow.weight, ffn.narrow.bias)
    torch.testing.assert_close(ffn(x), F.layer_norm(summed, (CHANNELS,), ffn.norm.weight, ffn.norm.bias, 1e-5))


@pytest.mark.usefixtures("in_float64")
def test_an_encoder_layer_asks_with_positions_and_reads_without() -> None:
    layer = EncoderLayer(*SIZES, dropout=0.0)
    shaken(layer)
    cells, positions = torch.randn(2, CELLS, CHANNELS), torch.randn(2, CELLS, CHANNELS)
    references, padding = torch.rand(2, CELLS, len(SHAPES), 2), torch.rand(2, CELLS) > 0.8
    read = layer.attention(cells + positions, references, cells, SHAPES, padding)
    expected = layer.ffn(layer.norm(cells + read))
    torch.testing.assert_close(layer(cells, positions, references, SHAPES, padding), expected)


@pytest.mark.usefixtures("in_float64")
def test_a_decoder_layer_lets_queries_talk_and_then_read() -> None:
    layer = DecoderLayer(*SIZES, dropout=0.0)
    shaken(layer)
    state, positions = torch.randn(2, QUERIES, CHANNELS), torch.randn(2, QUERIES, CHANNELS)
    references, cells = torch.rand(2, QUERIES, len(SHAPES), 4), torch.randn(2, CELLS, CHANNELS)
    padding = torch.zeros(2, CELLS, dtype=torch.bool)
    query, key, value = (
        rearrange(x @ weight.T + bias, "n q (k d) -> n k q d", k=HEADS)
        for x, weight, bias in zip(
            (state + positions, state + positions, state),
            layer.self_attention.in_proj_weight.chunk(3),
            layer.self_attention.in_proj_bias.chunk(3),
            strict=True,
        )
    )
    attention = (query @ key.mT / math.sqrt(CHANNELS / HEADS)).softmax(dim=-1)
    told = layer.self_attention.out_proj(rearrange(attention @ value, "n k q d -> n q (k d)"))
    talked = layer.self_norm(state + told)
    read = layer.cross_attention(talked + positions, references, cells, SHAPES, padding)
    expected = layer.ffn(layer.cross_norm(talked + read))
    got = layer(state, positions, references, cells, SHAPES, padding)
    torch.testing.assert_close(got, expected)


def test_dropout_is_off_in_eval_mode_and_on_in_training() -> None:
    transformer, inputs = a_transformer(dropout=0.5), frames(1)
    transformer.eval()
    torch.testing.assert_close(transformer(*inputs).states, transformer(*inputs).states, atol=0, rtol=0)
    transformer.train()
    assert not torch.equal(transformer(*inputs).states, transformer(*inputs).states)


@pytest.fixture
def refined() -> tuple[DeformableTransformer, Decoded]:
    transformer = a_transformer()
    shaken(transformer)
    return transformer, transformer(*frames(2))


@pytest.mark.usefixtures("in_float64")
def test_boxes_move_on_from_the_reference_their_layer_started_from(
    refined: tuple[DeformableTransformer, Decoded],
) -> None:
    transformer, found = refined
    reference_points = [F.pad(found.initial_reference, (0, 2), value=0.5), *found.references]  # 0.5 has logit 0
    for layer, head in enumerate(heads_of(transformer)):
        expected = torch.sigmoid(head(found.states[layer]) + inverse_sigmoid(reference_points[layer]))
        torch.testing.assert_close(found.boxes[layer], expected)
        torch.testing.assert_close(found.references[layer], found.boxes[layer])
        torch.testing.assert_close(found.reference_points[layer], reference_points[layer][..., :2])


@pytest.mark.usefixtures("in_float64")
def test_references_are_scaled_to_the_unpadded_part_of_each_level() -> None:
    transformer, inputs, seen = a_transformer(), frames(2), []
    shaken(transformer)
    for layer in transformer.decoder:
        layer.register_forward_pre_hook(lambda _module, given: seen.append(given[2]))
    found = transformer(*inputs)
    ratios = valid_ratios(inputs[2])[:, None]
    assert ratios.min() < 1
    torch.testing.assert_close(seen[0], found.initial_reference[:, :, None] * ratios)
    torch.testing.assert_close(seen[1], found.references[0][:, :, None] * torch.cat((ratios, ratios), dim=-1))


@pytest.mark.usefixtures("in_float64")
def test_the_initial_reference_is_where_the_query_points(refined: tuple[DeformableTransformer, Decoded]) -> None:
    transformer, _ = refined
    inputs = frames(2)
    expected = torch.sigmoid(transformer.reference(inputs[-1]))
    torch.testing.assert_close(transformer(*inputs).initial_reference, expected.expand(2, -1, -1))


def test_a_box_teaches_its_own_layer_and_not_the_references_before_it(
    refined: tuple[DeformableTransformer, Decoded],
) -> None:
    transformer, found = refined
    assert not found.references.requires_grad
    own = [head.last.bias for head in heads_of(transformer)]
    for layer in range(LAYERS):
        gradients = torch.autograd.grad(found.boxes[layer].sum(), own, retain_graph=True)
        assert [bool(gradient.any()) for gradient in gradients] == [layer == other for other in range(LAYERS)]


def test_the_initial_reference_is_taught_by_the_first_box(refined: tuple[DeformableTransformer, Decoded]) -> None:
    transformer, found = refined
    (gradient,) = torch.autograd.grad(found.boxes[0].sum(), transformer.reference.weight)
    assert gradient.any()


@pytest.mark.usefixtures("in_float64")
def test_without_refinement_every_layer_starts_from_the_initial_reference() -> None:
    transformer = a_transformer(refine_boxes=False)
    shaken(transformer)
    found = transformer(*frames(2))
    (head,) = heads_of(transformer)
    for layer in range(LAYERS):
        delta = head(found.states[layer])
        xy = torch.sigmoid(delta[..., :2] + inverse_sigmoid(found.initial_reference))
        torch.testing.assert_close(found.boxes[layer], torch.cat((xy, delta[..., 2:].sigmoid()), dim=-1))
        torch.testing.assert_close(found.references[layer], found.initial_reference)
    (gradient,) = torch.autograd.grad(found.references.sum(), transformer.reference.weight)
    assert gradient.any()


@pytest.mark.usefixtures("in_float64")
def test_frames_do_not_see_each_other() -> None:
    transformer = a_transformer()
    shaken(transformer)
    levels, positions, paddings, sentence, queries = frames(2)
    together = transformer(levels, positions, paddings, sentence, queries)
    for n in range(2):
        one = slice(n, n + 1)
        alone = transformer(
            [x[one] for x in levels], [x[one] for x in positions], [x[one] for x in paddings], sentence[one], queries
        )
        torch.testing.assert_close(alone.states, together.states[:, one])
        for level, memory in zip(alone.memory, together.memory, strict=True):
            torch.testing.assert_close(level, memory[one])


def test_memory_keeps_the_places_of_the_cells() -> None:
    transformer, (levels, *rest) = a_transformer(), frames(1)
    for layer in transformer.encoder:
        assert isinstance(layer, EncoderLayer)
        nn.init.zeros_(layer.attention.output.weight)  # cells read nothing, so each stays for itself
    before = transformer(levels, *rest).memory
    levels[1][0, :, 1, 2] += torch.randn(CHANNELS)
    changed = [(a != b).any(dim=1)[0] for a, b in zip(before, transformer(levels, *rest).memory, strict=True)]
    assert not changed[0].any()
    assert changed[1].nonzero().tolist() == [[1, 2]]


def test_what_padded_cells_hold_does_not_reach_the_queries() -> None:
    transformer = a_transformer()
    shaken(transformer)
    levels, *rest = frames(1)
    noisy = [level + 100 * padding[:, None] for level, padding in zip(levels, rest[1], strict=True)]
    assert torch.equal(transformer(levels, *rest).states, transformer(noisy, *rest).states)


def test_boxes_start_at_their_reference_and_the_first_one_small() -> None:
    for index, head in enumerate(heads_of(a_transformer())):
        assert not head.last.weight.any()
        assert head.last.bias.tolist() == ([0, 0, -2, -2] if index == 0 else [0, 0, 0, 0])


def test_matrices_start_xavier_uniform_and_level_embeddings_normal() -> None:
    transformer = a_transformer(channels=256)
    for layers in (transformer.encoder, transformer.decoder):
        for name, weight in layers.named_parameters():
            if weight.dim() == 2 and not name.endswith(("offsets.weight", "attention.weights.weight")):
                bound = math.sqrt(6 / sum(weight.shape))
                assert weight.abs().max().item() == pytest.approx(bound, rel=0.01), name
                assert weight.abs().max().item() <= bound, name
    assert transformer.level_embedding.std().item() == pytest.approx(1, abs=0.1)
    assert not transformer.reference.bias.any()
    assert transformer.reference.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 258), rel=0.02)
