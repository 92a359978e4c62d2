import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgmg.refine import MaskRefinement, RefineStep


def spelled_out(step: RefineStep, mask: Tensor, features: Tensor) -> Tensor:
    """Spec 7: two plain convolutions over mask and features together."""
    return mask + step.suggest(F.relu(step.join(F.relu(torch.cat((mask, features), dim=1)))))


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
@pytest.mark.usefixtures("in_float64")
def test_convolving_mask_and_features_apart_is_convolving_them_together(height: int, width: int) -> None:
    step = RefineStep(8)
    mask, features = torch.randn(2, 16, height, width), torch.randn(2, 8, height, width)
    expected = spelled_out(step, mask, features)
    torch.testing.assert_close(step(mask, step.detail(features)), expected)


@pytest.mark.parametrize("size_4", [(8, 12), (9, 11)])
@pytest.mark.usefixtures("in_float64")
def test_a_mask_is_refined_at_an_eighth_then_at_a_quarter(size_4: tuple[int, int]) -> None:
    refinement = MaskRefinement(channels_4=4, channels_8=8)
    size_8 = -(-size_4[0] // 2), -(-size_4[1] // 2)
    mask, features_4, features_8 = torch.randn(2, 16, *size_8), torch.randn(2, 4, *size_4), torch.randn(2, 8, *size_8)
    coarse = spelled_out(refinement.step_8, mask, features_8)
    resized = F.interpolate(coarse, size_4, mode="bilinear", align_corners=False)
    expected = spelled_out(refinement.step_4, resized, features_4)
    refined = refinement(mask, refinement.details(features_4, features_8))
    torch.testing.assert_close(refined, expected)


@pytest.mark.usefixtures("in_float64")
def test_details_of_a_frame_serve_every_mask_of_it() -> None:
    refinement = MaskRefinement(channels_4=4, channels_8=8)
    masks = torch.randn(3, 16, 4, 6)
    details = refinement.details(torch.randn(1, 4, 8, 12), torch.randn(1, 8, 4, 6))
    together = refinement(masks, [detail.expand(3, -1, -1, -1) for detail in details])
    alone = torch.cat([refinement(mask[None], details) for mask in masks])
    torch.testing.assert_close(together, alone)
