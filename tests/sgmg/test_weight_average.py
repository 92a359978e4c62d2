"""A moving average of weights follows them, and can be put in their place."""

import pytest
import torch
from torch import nn

from sgmg.weight_average import WeightAverage


@pytest.fixture
def model() -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    return model


def learn(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_it_is_the_sum_of_the_weights_in_falling_shares(model: nn.Linear) -> None:
    learn(model, 0.0)
    average, expected = WeightAverage(model, decay=0.5), 0.0
    for step, value in enumerate([1.0, 5.0, -2.0, 8.0], start=1):
        learn(model, value)
        average.update()
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
    torch.testing.assert_close(average.state_dict()["weight"], torch.full((2, 3), expected))
    assert torch.equal(average.state_dict()["bias"], model.bias)


def test_it_stands_in_the_models_place_for_a_block(model: nn.Linear) -> None:
    average = WeightAverage(model, decay=0.9)
    before = model.weight.detach().clone()
    learn(model, 7.0)
    with average.in_place():
        assert torch.equal(model.weight, before)
    assert torch.equal(model.weight, torch.full((2, 3), 7.0))
    assert model.weight.requires_grad


def test_one_that_goes_on_from_its_state_comes_to_the_same(model: nn.Linear) -> None:
    one = WeightAverage(model, decay=0.9)
    learn(model, 1.0)
    one.update()
    other = WeightAverage(model, decay=0.9)
    other.load_state_dict(one.state_dict(), one.steps)
    for value in (2.0, 3.0):
        learn(model, value)
        one.update()
        other.update()
    assert torch.equal(one.state_dict()["weight"], other.state_dict()["weight"])
