"""The spectrum-guided filter: attends to the frame as a whole by mixing channels of its Fourier spectrum."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

BANDWIDTH = 7.0
"""Standard deviation of the Gaussian, in frequencies."""


def gaussian(height: int, width: int, device: torch.device | None = None) -> Float[Tensor, "h w"]:
    """A Gaussian round index (h//2, w//2): of an unshifted spectrum, the highest frequency (spec 4).

    >>> gaussian(4, 6).argmax().item() == 2 * 6 + 3
    True
    """
    rows = torch.arange(height, device=device, dtype=torch.float32) - height // 2
    columns = torch.arange(width, device=device, dtype=torch.float32) - width // 2
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * BANDWIDTH**2))


def resize_attenuation(attenuation: Float[Tensor, "_ _"], size: tuple[int, int]) -> Float[Tensor, "_ _"]:
    """The attenuation of the next level, made from that of the level before.

    Parity: the published filters build their Gaussian once, at level 8, and each later one gets it resized.
    """
    return F.interpolate(attenuation[None, None], size, mode="bilinear", align_corners=False)[0, 0]


class SpectrumFilter(nn.Module):
    """Damps some frequencies, mixes the channels of all, and adds the result to its input (paper 3.2, spec 4).

    How much is damped is one gate per frame, read from the frame itself. Always in float32: half precision cannot
    hold an unnormalized spectrum. (Where cuDNN is allowed TF32, its convolutions use it here as everywhere.)
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
        """Frames x of at least 3x3 cells, filtered."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            gate = rearrange(self.gate(self.edges(x).mean(dim=(2, 3))), "n 1 -> n 1 1 1")
            spectrum = torch.fft.fft2(x) * (1 - gate * attenuation)
            mixed = self.mix(torch.cat((spectrum.real, spectrum.imag), dim=1))
            real, imaginary = mixed.chunk(2, dim=1)
            # The mixed spectrum is no longer that of a real image, so a full inverse is needed, not irfft2.
            return x + torch.fft.ifft2(torch.complex(real, imaginary)).real
