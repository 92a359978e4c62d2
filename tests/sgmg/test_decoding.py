import pytest
import torch
import torch.nn.functional as F

from sgmg.batch import ClipOutput
from sgmg.decoding import (
    best_query,
    boxes_in_pixels,
    mask_from_logits,
    merge_objects,
    original_logits,
    packed_bits,
    ranked_queries,
    take_query,
)
from sgmg.masks import masks_to_bits


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    """Scores of one expression: a row a frame, a column a query."""
    return torch.tensor([probabilities]).logit()


def test_the_best_query_is_best_on_average_over_frames_and_in_probability() -> None:
    # Summing logits instead would choose query 0: a frame at 0.999 outweighs two below one half.
    scores = logits_of([[0.999, 0.6], [0.3, 0.6], [0.3, 0.6]])
    assert scores.mean(dim=1).argmax().item() == 0
    assert best_query(scores).tolist() == [1]


def test_of_equal_queries_the_first_is_the_best() -> None:
    assert best_query(logits_of([[0.2, 0.7, 0.7]])).tolist() == [1]


def test_each_expression_chooses_for_itself() -> None:
    scores = torch.cat((logits_of([[0.1, 0.9]]), logits_of([[0.8, 0.2]])))
    assert best_query(scores).tolist() == [1, 0]


def test_ranked_queries_fall_in_score_and_equals_keep_their_order() -> None:
    assert ranked_queries(logits_of([[0.3, 0.7, 0.3, 0.9, 0.7]])).tolist() == [[3, 1, 4, 0, 2]]


def test_a_query_is_taken_for_all_frames() -> None:
    values = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    taken = take_query(values, torch.tensor([3, 0]))
    torch.testing.assert_close(taken, torch.stack((values[0, :, 3], values[1, :, 0])))


@pytest.mark.usefixtures("in_float64")
def test_logits_lose_their_padding_before_they_are_resized() -> None:
    logits = torch.randn(2, 3, 8, 16)
    logits[..., 6:, :] = logits[..., 12:] = 1e6
    resized = original_logits(logits, size=(6, 12), original=(9, 20))
    expected = F.interpolate(logits[..., :6, :12], (9, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, expected)
    assert resized.abs().max() < 100


def test_logits_of_half_precision_are_resized_in_float32() -> None:
    assert original_logits(torch.randn(1, 2, 4, 4).bfloat16(), (4, 4), (8, 8)).dtype == torch.float32


def test_a_pixel_of_even_odds_is_outside() -> None:
    assert mask_from_logits(torch.tensor([[-1.0, 0.0, 1e-3]])).tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("probabilities", "winner"),
    [
        pytest.param([0.6, 0.9], 2, id="the likelier"),
        pytest.param([0.7, 0.7], 1, id="the first of equals"),
        pytest.param([0.49, 0.3], 0, id="nobody, where none is likely"),
        pytest.param([0.49, 0.5], 2, id="one at exactly a half"),
        pytest.param([0.0, 0.0], 0, id="nobody, where none is at all"),
    ],
)
def test_a_pixel_goes_to(probabilities: list[float], winner: int) -> None:
    assert merge_objects(torch.tensor(probabilities).view(-1, 1, 1, 1)).item() == winner


def test_boxes_are_those_of_the_last_layer_in_pixels_of_their_own_clip() -> None:
    first, last = torch.full((2, 1, 1, 4), 0.9), torch.tensor([0.5, 0.5, 0.5, 1.0]).expand(2, 1, 1, 4)
    out = ClipOutput(
        scores=torch.zeros(2, 2, 1, 1),
        boxes=torch.stack((first, last)),
        reference_points=torch.zeros(2, 2, 1, 1, 2),
        patch_masks=torch.zeros(2, 2, 1, 1, 16, 2, 2),
        clip_of=torch.tensor([1, 0]),
    )
    boxes = boxes_in_pixels(out, torch.tensor([[40, 80], [100, 200]]))
    assert boxes[:, 0, 0].tolist() == [[50, 0, 150, 100], [20, 0, 60, 40]]


def test_a_single_mask_is_resized_too() -> None:
    assert original_logits(torch.randn(8, 8), (6, 8), (12, 16)).shape == (12, 16)


@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (1, 16, 8), (9, 3)])
def test_bits_packed_on_a_device_are_those_packed_on_the_processor(shape: tuple[int, ...]) -> None:
    masks = torch.rand(shape) > 0.5
    assert packed_bits(masks).tolist() == masks_to_bits(masks.numpy()).tolist()
