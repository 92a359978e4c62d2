import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgmg.deformable_attention import DeformableAttention, Shapes, sample_bilinear

N, CELLS_ASKING, HEADS, POINTS, DEPTH = 2, 7, 3, 2, 5
SHAPES: Shapes = [(6, 8), (3, 5), (1, 2)]
CELLS = sum(h * w for h, w in SHAPES)
CHANNELS = HEADS * DEPTH


def one_by_one(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """What `sample_bilinear` gives, by `grid_sample` on one level, head and point at a time."""
    n, _, heads, depth = values.shape
    out = values.new_zeros(n, locations.shape[1], heads, depth)
    parts = values.split([h * w for h, w in SHAPES], dim=1)
    for level, (h, w) in enumerate(SHAPES):
        for head in range(heads):
            image = parts[level][:, :, head].transpose(1, 2).unflatten(-1, (h, w))
            for point in range(locations.shape[4]):
                grid = 2 * locations[:, :, None, head, level, point] - 1
                seen = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
                share = weights[:, :, head, level, point, None]
                out[:, :, head] = out[:, :, head] + share * seen[..., 0].transpose(1, 2)
    return out.flatten(2)


def draws(spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations that leave the frame by `spread` on each side, weights."""
    values = torch.randn(N, CELLS, HEADS, DEPTH, requires_grad=True)
    locations = torch.rand(N, CELLS_ASKING, HEADS, len(SHAPES), POINTS, 2) * (1 + 2 * spread) - spread
    weights = torch.rand(N, CELLS_ASKING, HEADS, len(SHAPES), POINTS, requires_grad=True)
    return values, locations.requires_grad_(), weights


@pytest.fixture(params=[True, False], ids=["learning", "inference"])
def learning(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With gradient and without: sampling has a way of its own for each."""
    with torch.set_grad_enabled(request.param):
        yield request.param


@pytest.mark.usefixtures("learning")
@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
@pytest.mark.usefixtures("in_float64")
def test_samples_are_those_of_every_level_head_and_point(spread: float) -> None:
    values, locations, weights = draws(spread)
    expected = one_by_one(values, locations, weights)
    torch.testing.assert_close(sample_bilinear(values, SHAPES, locations, weights), expected)


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
@pytest.mark.usefixtures("in_float64")
def test_gradients_are_those_of_every_level_head_and_point(spread: float) -> None:
    inputs = values, locations, weights = draws(spread)
    up = torch.randn(N, CELLS_ASKING, CHANNELS)
    got = torch.autograd.grad((sample_bilinear(values, SHAPES, locations, weights) * up).sum(), inputs)
    expected = torch.autograd.grad((one_by_one(values, locations, weights) * up).sum(), inputs)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("far", [-1e9, -3.0, 4.0, 1e9, 1e30])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_point_far_outside_reads_nothing_and_learns_nothing(far: float, axis: int, learning: bool) -> None:
    values, locations, weights = draws(0.0)
    away = locations.detach().clone()
    away[..., axis] = far
    away.requires_grad_()
    sampled = sample_bilinear(values, SHAPES, away, weights)
    assert not sampled.any()
    if learning:
        for gradient in torch.autograd.grad(sampled.sum(), (values, away, weights)):
            assert not gradient.any()


@pytest.mark.usefixtures("in_float64", "learning")
def test_a_point_on_a_centre_reads_that_cell_and_on_the_edge_half_of_it() -> None:
    values = torch.zeros(1, CELLS, 1, 1)
    values[0, 48 + 2 * 5 + 4] = 8  # last cell of the second level
    values.requires_grad_()
    locations = torch.full((1, 3, 1, len(SHAPES), 1, 2), -9.0)
    locations[0, :, 0, 1, 0] = torch.tensor([[4.5 / 5, 2.5 / 3], [1, 2.5 / 3], [1, 1]])
    sampled = sample_bilinear(values, SHAPES, locations, torch.ones(1, 3, 1, len(SHAPES), 1))
    torch.testing.assert_close(sampled[0, :, 0], torch.tensor([8.0, 4, 2]))


def an_attention() -> DeformableAttention:
    """Of random weights, offsets of about a cell."""
    attention = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.4)
    return attention


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.usefixtures("in_float64")
def test_where_and_how_much_heads_look_is_read_off_the_query_in_order(sides: int) -> None:
    attention, query = an_attention(), torch.randn(N, CELLS_ASKING, CHANNELS)
    references = torch.rand(N, CELLS_ASKING, len(SHAPES), sides)
    locations, weights = attention.sampling(query, references, SHAPES)
    offsets, logits = attention.offsets(query), attention.weights(query)
    place = 0
    for head in range(HEADS):
        shares = logits[..., head * len(SHAPES) * POINTS : (head + 1) * len(SHAPES) * POINTS].softmax(dim=-1)
        for level, (h, w) in enumerate(SHAPES):
            for point in range(POINTS):
                offset = offsets[..., 2 * place : 2 * place + 2]
                reference = references[:, :, level]
                if sides == 2:
                    expected = reference + offset / torch.tensor([w, h])
                else:
                    expected = reference[..., :2] + offset / POINTS * reference[..., 2:] * 0.5
                torch.testing.assert_close(locations[:, :, head, level, point], expected)
                torch.testing.assert_close(weights[:, :, head, level, point], shares[..., level * POINTS + point])
                place += 1


@pytest.mark.usefixtures("in_float64", "learning")
def test_queries_read_projected_cells_and_the_answer_is_projected() -> None:
    attention, query, cells = an_attention(), torch.randn(N, CELLS_ASKING, CHANNELS), torch.randn(N, CELLS, CHANNELS)
    references = torch.rand(N, CELLS_ASKING, len(SHAPES), 2)
    padding = torch.rand(N, CELLS) > 0.7
    values = attention.value(cells) * ~padding[..., None]
    read = one_by_one(values.unflatten(-1, (HEADS, DEPTH)), *attention.sampling(query, references, SHAPES))
    answer = attention(query, references, cells, SHAPES, padding)
    torch.testing.assert_close(answer, attention.output(read))


@pytest.mark.usefixtures("in_float64", "learning")
def test_padded_cells_give_zeros_and_their_bias_neither() -> None:
    attention = an_attention()
    answer = attention(
        torch.randn(N, CELLS_ASKING, CHANNELS),
        torch.rand(N, CELLS_ASKING, len(SHAPES), 2),
        torch.randn(N, CELLS, CHANNELS),
        SHAPES,
        torch.ones(N, CELLS, dtype=torch.bool),
    )
    torch.testing.assert_close(answer, attention.output.bias.expand_as(answer))


@pytest.mark.usefixtures("in_float64")
def test_heads_start_looking_in_eight_directions_and_points_one_step_further_each() -> None:
    attention = DeformableAttention(64, heads=8, levels=4, points=4)
    bias = attention.offsets.bias.detach().view(8, 4, 4, 2)
    for head in range(8):
        x, y = math.cos(2 * math.pi * head / 8), math.sin(2 * math.pi * head / 8)
        longest = max(abs(x), abs(y))
        for point in range(4):
            step = torch.tensor([x / longest, y / longest]) * (point + 1)
            torch.testing.assert_close(bias[head, :, point], step.expand(4, 2))
    assert not attention.offsets.weight.any()
    for linear in (attention.weights, attention.value, attention.output):
        assert not linear.bias.any()
    assert not attention.weights.weight.any()
    for linear in (attention.value, attention.output):
        assert linear.weight.abs().max() <= math.sqrt(6 / 128)
        assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.05)


def test_attention_computes_in_float32_where_float16_is_chosen_and_nearly_that_in_bfloat16() -> None:
    attention = an_attention()
    query, cells = (torch.randn(N, m, CHANNELS).bfloat16() for m in (CELLS_ASKING, CELLS))
    references, padding = torch.rand(N, CELLS_ASKING, len(SHAPES), 4), torch.zeros(N, CELLS, dtype=torch.bool)
    full = attention(query.float(), references, cells.float(), SHAPES, padding)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(attention(query, references, cells, SHAPES, padding), full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        locations, weights = attention.sampling(query, references, SHAPES)
        mixed = attention(query, references, cells, SHAPES, padding)
    assert (locations.dtype, weights.dtype, mixed.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    assert (mixed - full).abs().mean() < 0.05 * full.abs().mean()
