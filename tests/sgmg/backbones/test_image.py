import pytest
import torch
from torch import Tensor, nn

from sgmg.backbones.image import ImageSwin, ResNet
from sgmg.backbones.video_swin import Block
from sgmg.config import ResNetConfig, SwinConfig

SWIN = SwinConfig(8, (2, 2, 2, 2), (1, 2, 4, 8), video=False, window=(1, 7, 7), drop_path=0.0)


@pytest.mark.usefixtures("in_float64")
def test_swin_sees_every_frame_for_itself() -> None:
    backbone, frames = ImageSwin(SWIN), torch.randn(2, 2, 3, 32, 44)
    together = backbone(frames)
    alone = backbone(frames[1:, 1:])
    assert [tuple(feature.shape) for feature in together] == [
        (2, 2, 8, 8, 11),
        (2, 2, 16, 4, 6),
        (2, 2, 32, 2, 3),
        (2, 2, 64, 1, 2),
    ]
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[1:, 1:], one)


@pytest.mark.usefixtures("in_float64")
def test_outputs_of_swin_are_normalized_and_what_is_merged_is_not() -> None:
    backbone, frames, merged = ImageSwin(SWIN), torch.randn(1, 2, 3, 32, 32), []
    for merging in backbone.body.mergings:
        merging.register_forward_hook(lambda _module, inputs, _output: merged.append(inputs[0]))
    with torch.no_grad():
        for weight in backbone.norms.parameters():
            weight.normal_()
    features = backbone(frames)
    for norm, feature, raw in zip(backbone.norms, features, merged, strict=False):
        assert (raw.mean(dim=-1).abs() > 1e-3).any()
        torch.testing.assert_close(feature[0], norm(raw)[:, 0].movedim(-1, 1))


def test_windows_of_swin_do_not_shrink() -> None:
    blocks = [module for module in ImageSwin(SWIN).modules() if isinstance(module, Block)]
    assert len(blocks) == 8
    assert not any(block.shrink for block in blocks)


def test_drop_path_of_swin_tosses_a_coin_per_frame() -> None:
    torch.manual_seed(1)
    backbone = ImageSwin(SwinConfig(8, (1, 1, 1, 2), (1, 1, 1, 1), video=False, window=(1, 7, 7), drop_path=0.9))
    finest = backbone(torch.randn(1, 1, 3, 32, 32).expand(1, 8, -1, -1, -1))[3]
    assert len(finest[0].flatten(1).unique(dim=0)) > 1


@pytest.fixture(scope="module")
def resnet() -> ResNet:
    torch.manual_seed(0)
    backbone = ResNet(ResNetConfig("resnet50")).double()
    with torch.no_grad():
        for name, buffer in backbone.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("weight"):  # timm starts the last norm of every block at zero, which silences the block
                buffer.fill_(0.7)
    return backbone


@pytest.mark.usefixtures("in_float64")
def test_features_of_resnet_are_those_of_timm(resnet: ResNet) -> None:
    frames = torch.randn(2, 1, 3, 64, 64)
    features = resnet(frames)
    assert [tuple(feature.shape[2:]) for feature in features] == [
        (256, 16, 16),
        (512, 8, 8),
        (1024, 4, 4),
        (2048, 2, 2),
    ]
    for feature, expected in zip(features, resnet.body(frames[:, 0]), strict=True):
        torch.testing.assert_close(feature[:, 0], expected)


@pytest.mark.usefixtures("in_float64")
def test_batch_norm_of_resnet_stays_as_it_is_in_training(resnet: ResNet) -> None:
    def statistics() -> dict[str, Tensor]:
        return {name: value.clone() for name, value in resnet.state_dict().items() if "running" in name}

    frames, before = torch.randn(1, 1, 3, 64, 64), statistics()
    resnet.eval()
    expected = resnet(frames)[3]
    resnet.train()
    torch.testing.assert_close(resnet(frames)[3], expected, atol=0, rtol=0)
    torch.testing.assert_close(statistics(), before, atol=0, rtol=0)
    assert len(before) == 2 * 53


def test_only_the_convolutions_behind_the_first_stage_of_resnet_learn(resnet: ResNet) -> None:
    learning = {name for name, parameter in resnet.named_parameters() if parameter.requires_grad}
    convolutions = {
        f"{name}.weight"
        for name, module in resnet.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(("body.layer2", "body.layer3", "body.layer4"))
    }
    assert learning == convolutions
    assert len(learning) == 53 - 1 - 10  # all but the stem's and those of the first stage


@pytest.mark.usefixtures("in_float64")
def test_a_checkpointed_resnet_has_the_same_gradients(resnet: ResNet) -> None:
    thrifty = ResNet(ResNetConfig("resnet50"), activation_checkpointing=True)
    thrifty.load_state_dict(resnet.state_dict())
    frames = torch.randn(1, 1, 3, 32, 32)
    gradients = []
    for backbone in (resnet, thrifty):
        weights = [weight for weight in backbone.parameters() if weight.requires_grad]
        gradients.append(torch.autograd.grad(backbone(frames)[3].square().mean(), weights))
    torch.testing.assert_close(*gradients)
