import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgmg.patch_kernels import kernel_parameters, mask_features, patch_masks, relative_coordinates, unfold_patches

CHANNELS = 6


def spelled_out(inputs: Tensor, parameters: Tensor) -> Tensor:
    """Two convolutions over one frame (i, h, w) with the numbers one query wrote, read off in order."""
    i = len(inputs)
    first, parameters = parameters[: 16 * i].view(16, i, 1, 1), parameters[16 * i :]
    second, parameters = parameters[:256].view(16, 16, 1, 1), parameters[256:]
    hidden = F.conv2d(inputs[None], first, parameters[:16]).relu()
    return F.conv2d(hidden, second, parameters[16:])[0]


@pytest.mark.parametrize("with_coordinates", [True, False])
@pytest.mark.usefixtures("in_float64")
def test_each_query_convolves_with_its_own_kernels(with_coordinates: bool) -> None:
    n, q, h, w = 2, 3, 4, 5
    features = torch.randn(n, CHANNELS, h, w)
    coordinates = torch.randn(n, q, 2, h, w) if with_coordinates else None
    parameters = torch.randn(n, q, kernel_parameters(CHANNELS, relative_coordinates=with_coordinates))
    masks = patch_masks(features, parameters, coordinates)
    for frame in range(n):
        for query in range(q):
            inputs = features[frame]
            if coordinates is not None:
                inputs = torch.cat((inputs, coordinates[frame, query]))
            expected = spelled_out(inputs, parameters[frame, query])
            torch.testing.assert_close(masks[frame, query], expected)


def test_coordinates_point_from_the_centre_of_a_cell_to_the_reference_in_pixels() -> None:
    references = torch.tensor([[[0.5, 0.25]], [[1.0, 0.0]]])
    sizes = torch.tensor([[40, 48], [16, 80]])
    coordinates = relative_coordinates(references, sizes, height=5, width=6)
    for frame, (x, y) in enumerate([(24, 10), (80, 0)]):
        for i in range(5):
            for j in range(6):
                assert coordinates[frame, 0, :, i, j].tolist() == [x - (8 * j + 4), y - (8 * i + 4)]


@pytest.mark.usefixtures("in_float64")
def test_mask_features_sum_the_levels_at_the_finest() -> None:
    memory = [torch.randn(2, CHANNELS, 8, 12), torch.randn(2, CHANNELS, 4, 6), torch.randn(2, CHANNELS, 2, 3)]
    expected = memory[0].clone()
    for level in memory[1:]:
        expected += F.interpolate(level, (8, 12), mode="bicubic", align_corners=False)
    torch.testing.assert_close(mask_features(memory), expected)
    torch.testing.assert_close(mask_features(memory[:1]), memory[0])


def test_a_patch_is_laid_out_row_by_row() -> None:
    patches = torch.randn(2, 3, 16, 2, 5)
    pixels = unfold_patches(patches)
    assert pixels.shape == (2, 3, 8, 20)
    for i in range(8):
        for j in range(20):
            torch.testing.assert_close(pixels[..., i, j], patches[..., (i % 4) * 4 + j % 4, i // 4, j // 4])
