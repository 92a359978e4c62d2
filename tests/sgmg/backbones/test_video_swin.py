from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgmg.backbones.video_swin import Block, PatchMerging, SwinStages, VideoSwin
from sgmg.backbones.windows import Size, WindowPlan
from sgmg.config import SwinConfig

DIM = 8
TINY = SwinConfig(DIM, (2, 2, 2, 2), (1, 2, 4, 8), video=True, window=(8, 7, 7), drop_path=0.0)


def a_block(full: Size, *, shifted: bool, shrink: bool, drop_path: float = 0.0) -> Block:
    block = Block(DIM, 2, full, shifted=shifted, shrink=shrink, drop_path=drop_path)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return block


def blocks_of(stages: SwinStages) -> list[Block]:
    return [block for block in stages.modules() if isinstance(block, Block)]


def spelled_out(block: Block, x: Tensor, plan: WindowPlan, padded: Size) -> Tensor:
    """A block of spec 3, moving tokens one by one: pad, then roll, attend, roll back, crop."""
    _, t, h, w, _ = x.shape
    rolled = torch.zeros(len(x), *padded, DIM)
    normed = F.layer_norm(x, (DIM,), block.attention_norm.weight, block.attention_norm.bias, 1e-5)
    homes = {}
    for i in range(t):
        for j in range(h):
            for k in range(w):
                home = tuple((a - s) % n for a, s, n in zip((i, j, k), plan.shift, padded, strict=True))
                homes[i, j, k] = home
                rolled[:, home[0], home[1], home[2]] = normed[:, i, j, k]
    back = rolled.roll(plan.shift, dims=(1, 2, 3))  # for the attention rolls what it is given
    attended = block.attention(back, plan).roll([-shift for shift in plan.shift], dims=(1, 2, 3))
    x = x + torch.stack([attended[:, *home] for home in homes.values()], dim=1).view_as(x)
    normed = F.layer_norm(x, (DIM,), block.mlp_norm.weight, block.mlp_norm.bias, 1e-5)
    widen, narrow = block.mlp[0], block.mlp[2]
    return x + narrow(F.gelu(widen(normed)))


@pytest.mark.parametrize(
    ("size", "padded", "window", "shift"),
    [
        pytest.param((5, 9, 7), (5, 14, 7), (5, 7, 7), (0, 3, 0), id="a short clip"),
        pytest.param((9, 5, 8), (16, 5, 14), (8, 5, 7), (4, 0, 3), id="a clip over eight frames"),
        pytest.param((3, 4, 5), (3, 4, 5), (3, 4, 5), (0, 0, 0), id="smaller than a window on every axis"),
    ],
)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.usefixtures("in_float64")
def test_a_block_of_video_pads_before_it_rolls(
    size: Size, padded: Size, window: Size, shift: Size, shifted: bool
) -> None:
    block, x = a_block((8, 7, 7), shifted=shifted, shrink=True), torch.randn(2, *size, DIM)
    plan = WindowPlan(window, shift if shifted else (0, 0, 0))
    torch.testing.assert_close(block(x), spelled_out(block, x, plan, padded))


@pytest.mark.parametrize(("size", "padded"), [((1, 3, 9), (1, 7, 14)), ((1, 7, 7), (1, 7, 7))])
@pytest.mark.usefixtures("in_float64")
def test_a_block_of_images_is_padded_and_rolled_even_where_a_window_holds_the_frame(size: Size, padded: Size) -> None:
    block, x = a_block((1, 7, 7), shifted=True, shrink=False), torch.randn(2, *size, DIM)
    plan = WindowPlan((1, 7, 7), (0, 3, 3))
    torch.testing.assert_close(block(x), spelled_out(block, x, plan, padded))


@pytest.mark.usefixtures("in_float64")
def test_drop_path_tosses_one_coin_per_clip_and_branch_and_survivors_are_scaled_up() -> None:
    block = a_block((8, 7, 7), shifted=False, shrink=True, drop_path=0.5)
    weight, second = block.mlp[2].parameters()
    nn.init.zeros_(weight)  # the second branch is a constant, which tells it from the first
    x = torch.randn(1, 1, 2, 2, DIM).expand(64, -1, -1, -1, -1)
    block.eval()
    first = block(x[:1]) - x[:1] - second
    torch.testing.assert_close(block(x), x + first + second)
    block.train()
    changes = block(x) - x
    found = set()
    for change in changes:
        fits = [(i, j) for i in (0, 2) for j in (0, 2) if torch.allclose(change, i * first[0] + j * second)]
        assert len(fits) == 1
        found.update(fits)
    assert found == {(0, 0), (0, 2), (2, 0), (2, 2)}


@pytest.mark.parametrize(("height", "width"), [(4, 6), (3, 5)])
@pytest.mark.usefixtures("in_float64")
def test_merging_joins_four_neighbours_column_by_column(height: int, width: int) -> None:
    merging, x = PatchMerging(DIM), torch.randn(2, 3, height, width, DIM)
    merged = merging(x)
    assert merged.shape == (2, 3, -(-height // 2), -(-width // 2), 2 * DIM)
    assert merging.reduce.bias is None
    padded = torch.zeros(2, 3, height + 1, width + 1, DIM)
    padded[:, :, :height, :width] = x
    for i in range(merged.shape[2]):
        for j in range(merged.shape[3]):
            four = [padded[:, :, 2 * i + di, 2 * j + dj] for di, dj in ((0, 0), (1, 0), (0, 1), (1, 1))]
            expected = merging.reduce(merging.norm(torch.cat(four, dim=-1)))
            torch.testing.assert_close(merged[:, :, i, j], expected)


def test_drop_path_grows_linearly_over_the_whole_network() -> None:
    stages = SwinStages(replace(TINY, depths=(2, 2, 6, 2), drop_path=0.2), activation_checkpointing=False)
    rates = [block.drop_path.rate for block in blocks_of(stages)]
    assert rates == pytest.approx([0.2 * index / 11 for index in range(12)])


def test_every_other_block_of_a_stage_is_shifted() -> None:
    stages = SwinStages(replace(TINY, depths=(3, 2, 1, 2)), activation_checkpointing=False)
    assert [block.shifted for block in blocks_of(stages)] == [False, True, False, False, True, False, False, True]


def test_features_are_halved_stage_by_stage_and_time_never() -> None:
    features = VideoSwin(TINY)(torch.randn(1, 3, 3, 50, 37))
    assert [tuple(feature.shape) for feature in features] == [
        (1, 3, 8, 13, 10),
        (1, 3, 16, 7, 5),
        (1, 3, 32, 4, 3),
        (1, 3, 64, 2, 2),
    ]


def test_features_are_what_leaves_a_stage_and_not_what_is_merged() -> None:
    backbone, seen = VideoSwin(TINY), []
    for merging in backbone.body.mergings:
        merging.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    features = backbone(torch.randn(1, 2, 3, 32, 32))
    assert len(seen) == 3
    for feature, unmerged in zip(features, seen, strict=False):
        torch.testing.assert_close(feature, unmerged.movedim(-1, 2), atol=0, rtol=0)


@pytest.mark.usefixtures("in_float64")
def test_a_patch_is_four_by_four_pixels_of_one_frame_and_edges_are_filled_with_zeros() -> None:
    backbone, seen = VideoSwin(TINY), []
    first = blocks_of(backbone.body)[0]
    first.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    frames = torch.randn(1, 2, 3, 30, 33)
    backbone(frames)
    padded = torch.zeros(1, 2, 3, 32, 36)
    padded[..., :30, :33] = frames
    weight, bias = backbone.body.patches.weight.flatten(1), backbone.body.patches.bias
    assert bias is not None
    for t, i, j in [(0, 0, 0), (1, 7, 8), (0, 3, 8)]:
        patch = padded[0, t, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
        expected = backbone.body.patches_norm(weight @ patch + bias)
        torch.testing.assert_close(seen[0][0, t, i, j], expected)


def test_frames_of_a_clip_see_each_other_and_clips_do_not() -> None:
    backbone, frames = VideoSwin(TINY), torch.randn(2, 2, 3, 32, 32)
    changed = frames.clone()
    changed[0, 1] += 1
    before, after = backbone(frames)[0], backbone(changed)[0]
    assert not torch.equal(before[0, 0], after[0, 0])
    assert torch.equal(before[1], after[1])


@pytest.mark.usefixtures("in_float64")
def test_checkpointed_activations_give_the_same_features_and_gradients() -> None:
    plain, thrifty = VideoSwin(TINY), VideoSwin(TINY, activation_checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    calls = []
    blocks_of(thrifty.body)[0].attention_norm.register_forward_pre_hook(lambda *_: calls.append(1))
    frames = torch.randn(1, 2, 3, 32, 32)
    losses = [
        torch.stack([feature.square().mean() for feature in backbone(frames)]).sum() for backbone in (plain, thrifty)
    ]
    torch.testing.assert_close(*losses)
    plain_gradients, thrifty_gradients = (
        torch.autograd.grad(loss, tuple(backbone.parameters()))
        for loss, backbone in zip(losses, (plain, thrifty), strict=True)
    )
    torch.testing.assert_close(thrifty_gradients, plain_gradients)
    assert len(calls) == 2  # once forward, once again in the backward pass
