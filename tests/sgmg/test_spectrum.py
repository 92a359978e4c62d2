import math

import pytest
import torch
from torch import Tensor

from sgmg.spectrum import SpectrumFilter, gaussian, resize_attenuation


def fourier(n: int, sign: int) -> Tensor:
    """The matrix that transforms n samples, or with sign 1 transforms n frequencies back."""
    steps = torch.arange(n, dtype=torch.float64)
    matrix = torch.exp(sign * 2j * math.pi / n * torch.outer(steps, steps))
    return matrix / n if sign > 0 else matrix


def spelled_out(module: SpectrumFilter, x: Tensor, attenuation: Tensor) -> Tensor:
    """The filter of spec 4 on one frame (c, h, w), in double precision."""
    weights = {name: weight.detach().double() for name, weight in module.named_parameters()}
    x = x.double()
    c, h, w = x.shape
    patches = torch.stack([x[:, i : i + 3, j : j + 3].flatten() for i in range(h - 2) for j in range(w - 2)], dim=-1)
    edges = weights["edges.weight"].flatten(1) @ patches + weights["edges.bias"][:, None]
    gate = torch.sigmoid(weights["gate.2.weight"] @ (weights["gate.0.weight"] @ edges.mean(dim=1)).clamp(min=0))
    spectrum = (fourier(h, -1) @ x.to(torch.complex128) @ fourier(w, -1)) * (1 - gate * attenuation.double())
    z = torch.cat((spectrum.real, spectrum.imag)).flatten(1)
    z = (weights["mix.0.weight"].flatten(1) @ z + weights["mix.0.bias"][:, None]).clamp(min=0)
    z = (weights["mix.2.weight"].flatten(1) @ z + weights["mix.2.bias"][:, None]).view(2 * c, h, w)
    return x + (fourier(h, 1) @ torch.complex(z[:c], z[c:]) @ fourier(w, 1)).real


def a_filter(channels: int = 4) -> SpectrumFilter:
    module = SpectrumFilter(channels)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3), (1, 1)])
@pytest.mark.usefixtures("in_float64")
def test_the_gaussian_peaks_at_the_highest_frequency(height: int, width: int) -> None:
    expected = [
        [math.exp(-((i - height // 2) ** 2 + (j - width // 2) ** 2) / 98) for j in range(width)] for i in range(height)
    ]
    torch.testing.assert_close(gaussian(height, width), torch.tensor(expected))


def test_an_attenuation_of_the_same_size_passes_unchanged() -> None:
    torch.testing.assert_close(resize_attenuation(gaussian(5, 7), (5, 7)), gaussian(5, 7), atol=0, rtol=0)


@pytest.mark.usefixtures("in_float64")
def test_the_attenuation_of_the_next_level_is_resized_and_not_built_anew() -> None:
    resized = resize_attenuation(gaussian(8, 12), (4, 6))
    # Halving bilinearly averages 2x2 cells.
    torch.testing.assert_close(resized, gaussian(8, 12).view(4, 2, 6, 2).mean(dim=(1, 3)))
    assert (resized - gaussian(4, 6)).abs().max() > 0.01


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (3, 4)])
@pytest.mark.usefixtures("in_float64")
def test_the_filter_is_that_of_the_paper(height: int, width: int) -> None:
    module, x, attenuation = a_filter(), torch.randn(2, 4, height, width), gaussian(height, width)
    expected = torch.stack([spelled_out(module, frame, attenuation) for frame in x])
    torch.testing.assert_close(module(x, attenuation).double(), expected)


@pytest.mark.usefixtures("in_float64")
def test_each_frame_has_its_own_gate() -> None:
    module, x, attenuation = a_filter(), torch.randn(2, 4, 5, 7), gaussian(5, 7)
    torch.testing.assert_close(module(x, attenuation)[1:], module(x[1:], attenuation))


@pytest.mark.usefixtures("in_float64")
def test_a_silent_mixer_leaves_the_frame_alone() -> None:
    module, x = a_filter(), torch.randn(1, 4, 5, 7)
    for parameter in module.mix[2].parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(module(x, gaussian(5, 7)), x)


def test_the_filter_mixes_in_float32_where_float16_is_chosen_and_in_bfloat16_where_that_is() -> None:
    module, x, attenuation = a_filter(), torch.randn(1, 4, 5, 7).bfloat16(), gaussian(5, 7)
    full = module(x.float(), attenuation)
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.equal(module(x, attenuation), full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module(x, attenuation)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - full).abs().max() < 0.03 * full.abs().max()
