"""Spectrum-guided filter, which acts on the whole frame by mixing the channels of its Fourier spectrum."""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from sgmg import vector_math
from sgmg.precision import in_bfloat16, without_autocast

vector_math.settle()

BANDWIDTH = 7.0
"""Standard deviation of the Gaussian, in frequencies."""


def gaussian(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "h w"]:
    """Returns a Gaussian around index (h//2, w//2), the highest frequency of an unshifted spectrum (spec 4).

    >>> gaussian(4, 6).argmax().item() == 2 * 6 + 3
    True
    """
    rows = torch.arange(height, device=device, dtype=torch.float32) - height // 2
    columns = torch.arange(width, device=device, dtype=torch.float32) - width // 2
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * BANDWIDTH**2))


def resize_attenuation(attenuation: Float[Tensor, "_ _"], size: tuple[int, int]) -> Float[Tensor, "_ _"]:
    """Resizes the attenuation of a level to the size of the next level.

    Parity: the published code builds the Gaussian at level 8 only, and resizes it from level to level.
    """
    return F.interpolate(attenuation[None, None], size, mode="bilinear", align_corners=False)[0, 0]


class SpectrumFilter(nn.Module):
    """Attenuates frequencies, mixes the channels of the spectrum, and adds the result to the input (paper 3.2, spec 4).

    A gate per frame, computed from the frame, scales the attenuation. The transforms are in float32, as an unnormalised
    spectrum exceeds half precision; the mixing also in bfloat16, whose exponent has the range of float32.

    Only half of the spectrum is computed. A frame is real, so frequency -k holds the conjugate of what k holds; and the
    result is the real part of the inverse transform, which is that of the mean of the mixed spectrum at k and the
    conjugate of the one at -k.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.Conv2d(channels, channels, 3)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels, bias=False), nn.ReLU(), nn.Linear(channels, 1, bias=False), nn.Sigmoid()
        )
        self.mix = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 1), nn.ReLU(), nn.Conv2d(2 * channels, 2 * channels, 1)
        )

    def forward(self, x: Float[Tensor, "n c h w"], attenuation: Float[Tensor, "h w"]) -> Float[Tensor, "n c h w"]:
        """Filters frames x of at least 3x3 cells."""
        reduced = in_bfloat16(x.device)
        with without_autocast(x.device):
            x = x.float().contiguous()
            dtype = torch.bfloat16 if reduced else x.dtype
            gate = self.gate(self._mean_edges(x))[..., None, None]
            half = x.shape[3] // 2 + 1
            factors = [
                (1 - gate * part[:, :half]).flatten(2).to(dtype) for part in (attenuation, _opposite(attenuation))
            ]
            mixed = self._mix(torch.fft.rfft2(x).flatten(2), *factors)
            return x + torch.fft.irfft2(mixed.unflatten(2, (-1, half)), x.shape[2:])

    def _mean_edges(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        """Returns the mean over all cells of `self.edges(x)`: a convolution of the means of its nine shifted inputs."""
        rows, columns = (_shifted_means(side, x) for side in x.shape[2:])
        return self.edges(rows @ (x @ columns.mT)).flatten(1)

    def _mix(
        self, spectrum: Complex[Tensor, "n c f"], factor: Float[Tensor, "n 1 f"], opposite: Float[Tensor, "n 1 f"]
    ) -> Complex[Tensor, "n c f"]:
        """Returns the Hermitian part of the mixed spectrum, at the frequencies of half a plane.

        Args:
            spectrum: spectrum before the attenuation.
            factor, opposite: attenuation at the frequencies and at their opposites, in the dtype of the products.
        """
        first, second = self.mix[0], self.mix[2]
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.bias is not None
        assert second.bias is not None
        dtype, n = factor.dtype, len(spectrum)
        of_real, of_imaginary = first.weight.flatten(1).to(dtype).chunk(2, dim=1)
        to_real, to_imaginary = (second.weight.flatten(1) / 2).to(dtype).chunk(2, dim=0)
        bias = first.bias.to(dtype)[:, None]
        real = torch.bmm(of_real.expand(n, -1, -1), spectrum.real.to(dtype))
        imaginary = torch.bmm(of_imaginary.expand(n, -1, -1), spectrum.imag.to(dtype))
        # An attenuation is a number per frequency, so it may follow the product over channels.
        here = torch.addcmul(bias, real + imaginary, factor).relu()
        there = torch.addcmul(bias, real - imaginary, opposite).relu()
        # The bias of the imaginary half cancels between a frequency and its opposite.
        return torch.complex(
            torch.bmm(to_real.expand(n, -1, -1), here + there).float() + second.bias.chunk(2)[0][:, None],
            torch.bmm(to_imaginary.expand(n, -1, -1), here - there).float(),
        )


def _opposite(plane: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Returns the values at the opposite frequencies: (-i, -j) in the place of (i, j).

    >>> _opposite(torch.arange(6.0).view(2, 3)).tolist()
    [[0.0, 2.0, 1.0], [3.0, 5.0, 4.0]]
    """
    return plane.flip(0, 1).roll((1, 1), (0, 1))


def _shifted_means(length: int, like: Tensor) -> Float[Tensor, "3 {length}"]:
    """Returns the weights of three means of an axis: without its last two cells, its ends, and its first two.

    >>> _shifted_means(4, torch.empty(0)).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    cells, first = torch.arange(length, device=like.device), torch.arange(3, device=like.device)[:, None]
    return ((cells >= first) & (cells < first + length - 2)).to(like.dtype) / (length - 2)
