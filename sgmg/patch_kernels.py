"""Conditional patch kernels: each query predicts the weights of a small convolution for its mask (paper 3.3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

PATCH = 4
"""Side of the patch that one cell predicts, in pixels of the mask."""
KERNELS = PATCH * PATCH
"""Channels of a patch mask, and of the convolution that computes it."""
STRIDE = 8
"""Side of a cell, in pixels of the frame."""


def kernel_parameters(channels: int, *, relative_coordinates: bool) -> int:
    """Returns the number of weights per query, of two 1x1 convolutions with bias.

    >>> kernel_parameters(256, relative_coordinates=True), kernel_parameters(256, relative_coordinates=False)
    (4416, 4384)
    """
    inputs = channels + 2 * relative_coordinates
    return KERNELS * inputs + KERNELS * KERNELS + 2 * KERNELS


def relative_coordinates(
    references: Float[Tensor, "n q 2"], sizes: Int[Tensor, "n 2"], height: int, width: int
) -> Float[Tensor, "n q 2 {height} {width}"]:
    """Computes the offset from every cell's centre to the reference, as (x, y) in pixels of the frame (spec 7).

    Args:
        references: reference of each query, xy in units of the unpadded frame.
        sizes: (height, width) of the unpadded frame, in pixels.
        height, width: size of the level, in cells.
    """
    pixels = references * sizes.flip(-1)[:, None]
    x = torch.arange(width, device=references.device) * STRIDE + STRIDE // 2
    y = torch.arange(height, device=references.device) * STRIDE + STRIDE // 2
    dx = pixels[..., 0, None, None] - x
    dy = pixels[..., 1, None, None] - y[:, None]
    return torch.stack((dx.expand(-1, -1, height, -1), dy.expand(-1, -1, -1, width)), dim=2)


def mask_features(memory: Sequence[Float[Tensor, "n c _ _"]]) -> Float[Tensor, "n c h w"]:
    """Computes the features for masks: the memory of levels 8, 16, 32, resized to the finest and summed (spec 7)."""
    finest, *coarser = memory
    size = finest.shape[-2:]
    return finest + sum(F.interpolate(level, size, mode="bicubic", align_corners=False) for level in coarser)


def patch_masks(
    features: Float[Tensor, "n c h w"],
    parameters: Float[Tensor, "n q k"],
    coordinates: Float[Tensor, "n q 2 h w"] | None,
) -> Float[Tensor, "n q p h w"]:
    """Computes the patch masks of q queries: conv, ReLU, conv, with the weights in `parameters` (spec 7).

    All queries of a frame are computed in one product, without copying the features per query.
    """
    channels, height = features.shape[1], features.shape[2]
    inputs = channels + (0 if coordinates is None else 2)
    first, second, first_bias, second_bias = parameters.split(
        [KERNELS * inputs, KERNELS * KERNELS, KERNELS, KERNELS], dim=-1
    )
    weights = rearrange(first, "n q (p i) -> n q p i", i=inputs)
    hidden = torch.einsum("nqpc,ncs->nqps", weights[..., :channels], features.flatten(2))
    if coordinates is not None:
        # Elementwise, since autocast would round a matrix product: offsets of hundreds of pixels need float32.
        slopes = weights[..., channels:, None].float()
        dx, dy = coordinates.flatten(3)[:, :, None].unbind(3)
        hidden = hidden + slopes[..., 0, :] * dx + slopes[..., 1, :] * dy
    hidden = F.relu(hidden + first_bias[..., None])
    masks = rearrange(second, "n q (o p) -> n q o p", p=KERNELS) @ hidden + second_bias[..., None]
    return rearrange(masks, "n q p (h w) -> n q p h w", h=height)


def unfold_patches(patches: Float[Tensor, "*n p h w"]) -> Float[Tensor, "*n h*4 w*4"]:
    """Arranges the patch of each cell as pixels of the mask."""
    return F.pixel_shuffle(patches, PATCH).squeeze(-3)
