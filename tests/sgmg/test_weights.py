from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sgmg.config import ResNetConfig, SgMgConfig, SwinConfig, TextConfig
from sgmg.model import SgMg
from sgmg.weights import StateDictMismatch, load_into, meta_model

TEXT = TextConfig(vocabulary=300, width=16, layers=1, heads=2, ffn=32, max_tokens=40)
VIDEO = SwinConfig(8, (2, 2, 2, 2), (1, 2, 4, 8), video=True, window=(8, 7, 7))
SMALL = replace(SgMgConfig.preset("tiny"), backbone=VIDEO, text=TEXT, width=32, ffn=32)
KINDS = [
    SMALL,
    replace(SMALL, backbone=replace(VIDEO, video=False, window=(1, 7, 7))),
    replace(SMALL, backbone=ResNetConfig("resnet50")),
]


def answer(model: SgMg) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 2, 3, 130, 150, generator=draw)
    padding = torch.zeros(1, 130, 150, dtype=torch.bool)
    token_ids = torch.tensor([[0, 17, 41, 2]])
    with torch.no_grad():
        video = model.encode_video(frames, padding)
        text = model.encode_text(token_ids, token_ids < 0)
        out = model.segment(video, text, torch.tensor([[130, 150]]), torch.tensor([0]))
        return model.refine(video, out, torch.tensor([0]))


@pytest.mark.parametrize("config", KINDS, ids=["video swin", "image swin", "resnet"])
def test_a_model_of_given_weights_answers_as_the_one_they_came_from(config: SgMgConfig) -> None:
    model = SgMg(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)  # as drawn, many start at zero and would hide a mistake
    copy = load_into(meta_model(config), model.state_dict())
    assert not copy.training
    assert dict(copy.named_buffers()).keys() == dict(model.named_buffers()).keys()
    for name, buffer in model.named_buffers():
        assert copy.get_buffer(name).equal(buffer), name
    assert {n for n, p in copy.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    assert copy.state_dict().keys() == model.state_dict().keys()
    assert answer(copy).equal(answer(model))


def test_the_weights_are_copied_and_keep_their_dtype() -> None:
    weights = SgMg(SMALL).bfloat16().state_dict()
    copy = load_into(meta_model(SMALL), weights).state_dict()
    for name, weight in weights.items():
        weight.add_(1)
        assert copy[name].dtype == weight.dtype == torch.bfloat16
        assert not copy[name].equal(weight)


def test_a_blank_model_takes_no_memory() -> None:
    assert all(weight.is_meta for weight in meta_model(SMALL).state_dict().values())


def test_a_misfit_names_three_entries_and_counts_all() -> None:
    given = {f"w{index}": (1,) for index in range(5)}
    assert str(StateDictMismatch.between(given, {})) == "5 unexpected (w0, w1, w2, …)"
    assert len(StateDictMismatch.between(given, {"w0": (2,)})) == 5
