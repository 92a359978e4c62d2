import math
from itertools import product

import pytest
import torch
from torch import Tensor

from sgmg.backbones.windows import Size, WindowAttention, WindowPlan, relative_position_index

DIM, HEADS = 8, 2
FULL: Size = (4, 3, 5)


def table_row(first: tuple[int, ...], second: tuple[int, ...], full: Size) -> int:
    """The row of the bias table for two tokens of the full window (spec 3)."""
    dt, di, dj = (a - b for a, b in zip(first, second, strict=True))
    t, h, w = full
    return (dt + t - 1) * (2 * h - 1) * (2 * w - 1) + (di + h - 1) * (2 * w - 1) + (dj + w - 1)


def region(position: int, length: int, window: int, shift: int) -> int:
    """Of [0, n-w), [n-w, n-s), [n-s, n) the one a rolled position falls into; an unshifted axis is one region."""
    return 0 if shift == 0 else (position >= length - window) + (position >= length - shift)


def window_by_window(attention: WindowAttention, x: Tensor, plan: WindowPlan, full: Size, stranger: float) -> Tensor:
    """Spec 3 as it is written: an explicit mask of N x N for each window, made of the regions of its tokens."""
    x = x.roll([-shift for shift in plan.shift], dims=(1, 2, 3))
    out = torch.empty_like(x)
    offsets = list(product(*(range(side) for side in plan.window)))
    enumerated = list(product(*(range(side) for side in full)))[: len(offsets)]
    rows = [[table_row(a, b, full) for b in enumerated] for a in enumerated]
    sizes = x.shape[1:4]
    for corner in product(*(range(0, n, side) for n, side in zip(sizes, plan.window, strict=True))):
        cells = [tuple(a + b for a, b in zip(corner, offset, strict=True)) for offset in offsets]
        regions = [tuple(map(region, cell, sizes, plan.window, plan.shift)) for cell in cells]
        mask = torch.tensor([[0.0 if a == b else stranger for b in regions] for a in regions])
        t, h, w = torch.tensor(cells).T
        query, key, value = attention.qkv(x[:, t, h, w]).chunk(3, dim=-1)
        heads = []
        for head, (q, k, v) in enumerate(
            zip(*(part.chunk(HEADS, dim=-1) for part in (query, key, value)), strict=True)
        ):
            logits = q @ k.mT / math.sqrt(DIM / HEADS) + attention.position_bias[rows, head] + mask
            heads.append(logits.softmax(dim=-1) @ v)
        out[:, t, h, w] = attention.output(torch.cat(heads, dim=-1))
    return out.roll(plan.shift, dims=(1, 2, 3))


def an_attention(full: Size = FULL, scale: float = 0.5) -> WindowAttention:
    attention = WindowAttention(DIM, HEADS, full)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=scale)
    return attention


@pytest.mark.parametrize("window", [(2, 3, 2), (1, 2, 3)])
def test_a_pair_of_tokens_finds_the_row_of_its_offset(window: Size) -> None:
    index = relative_position_index(window)
    tokens = list(product(*(range(side) for side in window)))
    for n, first in enumerate(tokens):
        for m, second in enumerate(tokens):
            assert index[n, m] == table_row(first, second, window)


def test_rows_of_the_published_window_are_those_of_its_formula() -> None:
    index = relative_position_index((8, 7, 7))
    assert index.shape == (392, 392)
    first, second = (5 * 49 + 2 * 7 + 6), (7 * 49 + 6 * 7 + 1)
    assert index[first, second] == (5 - 7 + 7) * 169 + (2 - 6 + 6) * 13 + (6 - 1 + 6)


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        pytest.param((5, 20, 9), (5, 7, 7), (0, 3, 3), id="a clip shorter than the window"),
        pytest.param((8, 7, 8), (8, 7, 7), (0, 0, 3), id="axes as long as the window are not rolled"),
        pytest.param((9, 3, 4), (8, 3, 4), (4, 0, 0), id="a long clip of small frames"),
    ],
)
def test_a_window_of_video_shrinks_to_the_clip(size: Size, window: Size, shift: Size) -> None:
    assert WindowPlan.of(size, (8, 7, 7), shifted=True, shrink=True) == WindowPlan(window, shift)
    assert WindowPlan.of(size, (8, 7, 7), shifted=False, shrink=True) == WindowPlan(window, (0, 0, 0))


@pytest.mark.parametrize("size", [(1, 3, 20), (1, 7, 7)])
def test_a_window_of_images_never_shrinks(size: Size) -> None:
    assert WindowPlan.of(size, (1, 7, 7), shifted=True, shrink=False) == WindowPlan((1, 7, 7), (0, 3, 3))


def test_each_axis_is_padded_to_a_multiple_of_its_window() -> None:
    plan = WindowPlan((5, 7, 7), (0, 3, 3))
    assert plan.padding((5, 20, 7)) == (0, 1, 0)
    assert plan.padding((6, 1, 15)) == (4, 6, 6)


GRIDS = [
    pytest.param((2, 2, 2), (0, 0, 0), (2, 4, 4), id="one frame fits, no shift"),
    pytest.param((4, 3, 5), (2, 1, 2), (8, 6, 10), id="rolled along every axis"),
    pytest.param((4, 3, 5), (2, 1, 2), (4, 3, 5), id="rolled, one window that mixes every end"),
    pytest.param((4, 3, 5), (0, 1, 2), (4, 9, 10), id="rolled along rows and columns"),
    pytest.param((3, 3, 5), (0, 0, 2), (3, 3, 15), id="shrunk in time, rolled along columns"),
    pytest.param((4, 2, 3), (2, 0, 0), (8, 2, 3), id="shrunk in rows and columns, rolled in time"),
    pytest.param((1, 1, 1), (0, 0, 0), (1, 1, 1), id="a single token"),
]


@pytest.mark.parametrize(("window", "shift", "size"), GRIDS)
@pytest.mark.usefixtures("in_float64")
def test_attention_is_that_of_every_window_with_its_own_mask(window: Size, shift: Size, size: Size) -> None:
    attention, plan, x = an_attention(), WindowPlan(window, shift), torch.randn(2, *size, DIM)
    expected = window_by_window(attention, x, plan, FULL, stranger=-100)
    torch.testing.assert_close(attention(x, plan), expected)


@pytest.mark.usefixtures("in_float64")
def test_gradients_are_those_of_every_window_with_its_own_mask() -> None:
    attention, plan = an_attention(), WindowPlan((4, 3, 5), (2, 1, 2))
    x = torch.randn(1, 4, 6, 10, DIM, requires_grad=True)
    inputs = x, *attention.parameters()
    up = torch.randn_like(x)
    got = torch.autograd.grad((attention(x, plan) * up).sum(), inputs)
    expected = torch.autograd.grad((window_by_window(attention, x, plan, FULL, stranger=-100) * up).sum(), inputs)
    torch.testing.assert_close(got, expected)


@pytest.mark.usefixtures("in_float64")
def test_a_stranger_whose_logit_is_over_a_hundred_higher_is_still_heard() -> None:
    attention, plan, x = an_attention(scale=5.0), WindowPlan((4, 3, 5), (0, 1, 2)), torch.randn(1, 4, 3, 5, DIM)
    got = attention(x, plan)
    torch.testing.assert_close(got, window_by_window(attention, x, plan, FULL, stranger=-100))
    unheard = window_by_window(attention, x, plan, FULL, stranger=-math.inf)
    assert (got - unheard).abs().max() > 10


def test_position_biases_start_small_and_the_index_is_not_saved() -> None:
    attention = WindowAttention(32, 8, (8, 7, 7))
    assert attention.position_bias.shape == (15 * 13 * 13, 8)
    assert attention.position_bias.std().item() == pytest.approx(0.02, rel=0.05)
    assert "index" not in attention.state_dict()
