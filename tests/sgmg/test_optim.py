"""The optimiser's groups, rates and drops."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from block_cases import preset_name
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.optim import LearningRates, group_of, optimizer_for, parameter_groups, schedule_for
from sgmg.published import published_names

PUBLISHED_GROUPS = {"main": "main", "backbone": "backbone", "text_encoder": "text", "linear_proj": "sampling"}


def tiny() -> SgMg:
    return SgMg(SgMgConfig.preset("tiny"))


@pytest.mark.parametrize("backbone", ["video_swin_t_p4w7", "resnet50"])
def test_groups_are_the_published_ones(parity_pack: Path, backbone: str) -> None:
    published = json.loads((parity_pack / f"optim_groups_{backbone}.json").read_text())
    with torch.device("meta"):
        model = SgMg(SgMgConfig.preset(preset_name(backbone)))
    if published["freeze_text_encoder"]:
        model.text.freeze()
    names = published_names(model)
    name_of = {parameter: names[name] for name, parameter in model.named_parameters()}
    ours = {
        group["name"]: (group["lr"], {name_of[parameter] for parameter in group["params"]})
        for group in parameter_groups(model, LearningRates())
    }
    theirs = {
        PUBLISHED_GROUPS[group["name"]]: (group["lr"], {_without_alias(name) for name in group["params"]})
        for group in published["groups"]
    }
    assert ours == theirs


def _without_alias(name: str) -> str:
    """The box heads are listed under the name of their alias in the decoder."""
    return name.replace("transformer.decoder.bbox_embed.", "bbox_embed.")


def test_every_parameter_that_learns_is_in_one_group_with_decay() -> None:
    model = tiny()
    optimizer = optimizer_for(model)
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == sum(1 for _ in model.parameters())
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}


def test_a_frozen_text_encoder_leaves_its_group_empty() -> None:
    model = tiny()
    model.text.freeze()
    groups = {group["name"]: group["params"] for group in parameter_groups(model, LearningRates())}
    assert groups["text"] == []
    assert any(parameter is model.text.word_resizer.fc.weight for parameter in groups["main"])


def test_rates_fall_to_a_tenth_at_each_drop() -> None:
    optimizer = optimizer_for(tiny(), replace(LearningRates(), main=1.0))
    schedule = schedule_for(optimizer, [3, 5])
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_drops_that_do_not_rise_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[5, 3\]"):
        schedule_for(optimizer_for(tiny()), [5, 3])


def test_offsets_of_deformable_attention_have_their_own_group() -> None:
    assert group_of("transformer.decoder.1.cross_attention.offsets.weight") == "sampling"
    assert group_of("transformer.decoder.1.cross_attention.weights.weight") == "main"
