from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sgmg.batch import TextFeatures
from sgmg.fusion import Decoupling, LanguageFusion

CHANNELS, HEADS = 16, 4
CLIP_OF = torch.tensor([1, 0, 1])


@pytest.fixture
def fusion() -> LanguageFusion:
    module = LanguageFusion(CHANNELS, HEADS)
    nn.init.normal_(module.in_proj.bias)
    nn.init.normal_(module.out_proj.bias)
    return module


@pytest.fixture
def pixels() -> Tensor:
    """Two clips of two frames of 3x4 cells."""
    return torch.randn(2, 2, CHANNELS, 3, 4)


@pytest.fixture
def text() -> TextFeatures:
    """Three expressions; the last one has two words of padding."""
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[2, 3:] = True
    words, positions = torch.randn(3, 5, CHANNELS), torch.randn(3, 5, CHANNELS)
    return TextFeatures(words, positions, padding, sentence_feature=torch.randn(3, CHANNELS))


def spelled_out(fusion: LanguageFusion, pixels: Tensor, text: TextFeatures) -> Tensor:
    """PyTorch's own attention with the same weights, pixel by pixel of one clip (t, c, h, w) for one expression."""
    attention = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)
    attention.load_state_dict(
        {
            "in_proj_weight": fusion.in_proj.weight,
            "in_proj_bias": fusion.in_proj.bias,
            "out_proj.weight": fusion.out_proj.weight,
            "out_proj.bias": fusion.out_proj.bias,
        }
    )
    fused = torch.empty_like(pixels)
    for t in range(pixels.shape[0]):
        for i in range(pixels.shape[2]):
            for j in range(pixels.shape[3]):
                answer, _ = attention(
                    pixels[None, t, None, :, i, j], text.words + text.positions, text.words, text.padding
                )
                fused[t, :, i, j] = pixels[t, :, i, j] * answer[0, 0]
    return fused


@pytest.mark.usefixtures("in_float64")
def test_every_pixel_is_multiplied_by_the_answer_of_the_words(
    fusion: LanguageFusion, pixels: Tensor, text: TextFeatures
) -> None:
    fused = fusion(pixels, text, CLIP_OF)
    for expression, clip in enumerate(CLIP_OF.tolist()):
        one = text.expressions(slice(expression, expression + 1))
        torch.testing.assert_close(fused[expression], spelled_out(fusion, pixels[clip], one))


def test_padded_words_are_not_heard(fusion: LanguageFusion, pixels: Tensor, text: TextFeatures) -> None:
    noisy = replace(text, words=torch.where(text.padding[..., None], 1e3, text.words))
    torch.testing.assert_close(fusion(pixels, noisy, CLIP_OF), fusion(pixels, text, CLIP_OF), atol=0, rtol=0)


def test_there_is_no_way_round_the_words(fusion: LanguageFusion, pixels: Tensor, text: TextFeatures) -> None:
    nn.init.zeros_(fusion.out_proj.weight)
    nn.init.zeros_(fusion.out_proj.bias)
    assert not fusion(pixels, text, CLIP_OF).any()


@pytest.fixture
def cells() -> tuple[Tensor, Tensor]:
    """The memory of two clips of two frames of six cells, and the cells fused with each of three expressions."""
    return torch.randn(2, 2, 6, CHANNELS, dtype=torch.float64), torch.randn(3, 2, 6, CHANNELS, dtype=torch.float64)


def test_a_decoupling_that_has_learned_nothing_hands_the_memory_on(cells: tuple[Tensor, Tensor]) -> None:
    memory, fused = cells
    assert torch.equal(Decoupling(CHANNELS).double()(memory, fused, CLIP_OF), memory[CLIP_OF])


def test_what_sets_an_expression_apart_is_how_it_differs_from_the_mean_of_its_clip(
    cells: tuple[Tensor, Tensor],
) -> None:
    memory, fused = cells
    decoupling = Decoupling(CHANNELS).double()
    with torch.no_grad():  # all that it takes from the fused cells themselves stays zero
        decoupling.scale_and_shift.weight[:, CHANNELS:].normal_()
    out = decoupling(memory, fused, CLIP_OF)
    assert torch.equal(out[1], memory[0]), "alone in its clip, it differs from nobody"
    differences = (fused[0] - fused[2]) / 2
    for number, difference in ((0, differences), (2, -differences)):
        apart = decoupling.difference_norm(difference) @ decoupling.scale_and_shift.weight[:, CHANNELS:].T
        scale, shift = (8 * apart).chunk(2, dim=-1)
        torch.testing.assert_close(out[number], memory[1] * (1 + scale) + shift)
