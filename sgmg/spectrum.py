"""Spectrum-guided filter, which acts on the whole frame by mixing the channels of its Fourier spectrum."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

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

    A gate per frame, computed from the frame, scales the attenuation. Always in float32: an unnormalized spectrum
    exceeds half precision. (If TF32 is enabled in cuDNN, the convolutions use it.)
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
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            gate = rearrange(self.gate(self.edges(x).mean(dim=(2, 3))), "n 1 -> n 1 1 1")
            spectrum = torch.fft.fft2(x) * (1 - gate * attenuation)
            mixed = self.mix(torch.cat((spectrum.real, spectrum.imag), dim=1))
            real, imaginary = mixed.chunk(2, dim=1)
            # The mixed spectrum is no longer that of a real image, so a full inverse is needed, not irfft2.
            return x + torch.fft.ifft2(torch.complex(real, imaginary)).real
