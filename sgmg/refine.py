"""Multi-granularity refinement of a patch mask with the features at 1/8, then at 1/4 (paper 3.4)."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sgmg.patch_kernels import KERNELS


class RefineStep(nn.Module):
    """Adds to a mask the output of two convolutions over mask and features.

    A convolution over (mask, features) is the sum of one over each, so the part of the features is computed once per
    frame, for the masks of all expressions, queries and layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(KERNELS + channels, KERNELS, 3, padding=1)
        self.suggest = nn.Conv2d(KERNELS, KERNELS, 3, padding=1)

    def detail(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p h w"]:
        """Computes the part of the features, including the bias."""
        return F.conv2d(F.relu(features), self.join.weight[:, KERNELS:], self.join.bias, padding=1)

    def forward(self, mask: Float[Tensor, "n p h w"], detail: Float[Tensor, "n p h w"]) -> Float[Tensor, "n p h w"]:
        joined = F.conv2d(F.relu(mask), self.join.weight[:, :KERNELS], padding=1) + detail
        return mask + self.suggest(F.relu(joined))


class MaskRefinement(nn.Module):
    """Refines patch masks at 1/8 to patch masks at 1/4, whose patches are pixels of the full size (spec 7)."""

    def __init__(self, channels_4: int, channels_8: int) -> None:
        super().__init__()
        self.step_8 = RefineStep(channels_8)
        self.step_4 = RefineStep(channels_4)

    def details(
        self, features_4: Float[Tensor, "n _ h4 w4"], features_8: Float[Tensor, "n _ h8 w8"]
    ) -> tuple[Float[Tensor, "n p h4 w4"], Float[Tensor, "n p h8 w8"]]:
        """Computes the parts of the backbone features in both steps, finest first."""
        return self.step_4.detail(features_4), self.step_8.detail(features_8)

    def forward(
        self, mask: Float[Tensor, "n p h8 w8"], details: Sequence[Float[Tensor, "n p _ _"]]
    ) -> Float[Tensor, "n p h4 w4"]:
        detail_4, detail_8 = details
        mask = self.step_8(mask, detail_8)
        mask = F.interpolate(mask, detail_4.shape[-2:], mode="bilinear", align_corners=False)
        return self.step_4(mask, detail_4)
