import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sgmg.batch import ClipOutput
from sgmg.config import SgMgConfig
from sgmg.deformable_attention import Sampler, Shapes, bilinear_sampler
from sgmg.model import SgMg
from sgmg.spectrum import SpectrumFilter
from sgmg.transformer import MLP

TINY = SgMgConfig.preset("tiny")
OneClip = tuple[Tensor, Tensor]
PARAMETERS = {
    "video-swin-t": 177_877_628,
    "video-swin-s": 199_536_236,
    "video-swin-b": 238_382_430,
    "resnet50": 177_079_894,
    "resnet101": 196_019_798,
    "swin-t": 177_554_000,
    "swin-s": 198_871_904,
    "swin-b": 237_496_654,
    "swin-l": 347_186_474,
}
"""Of the published implementation."""


def shaken(config: SgMgConfig) -> SgMg:
    """A model off its initial values, at which boxes and heads are mute; in eval mode."""
    torch.manual_seed(0)
    model = SgMg(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


@pytest.fixture
def one_clip() -> OneClip:
    """Frames of a clip, and the words of an expression about it."""
    return torch.randn(1, 1, 3, 132, 132), torch.randint(4, 2000, (1, 4))


def answers(model: SgMg, one_clip: OneClip) -> tuple[ClipOutput, Tensor]:
    """All layers, and the first query drawn."""
    frames, token_ids = one_clip
    video = model.encode_video(frames, torch.zeros(1, *frames.shape[-2:], dtype=torch.bool))
    text = model.encode_text(token_ids, torch.zeros_like(token_ids, dtype=torch.bool))
    sizes = torch.tensor([frames.shape[-2:]])
    out = model.segment(video, text, sizes, torch.tensor([0]), layers="all")
    return out, model.refine(video, out, torch.tensor([0]))


@pytest.mark.usefixtures("in_float64")
def test_without_dropout_training_and_evaluation_give_the_same(one_clip: OneClip) -> None:
    model = shaken(TINY)
    evaluated, mask = answers(model.eval(), one_clip)
    trained, trained_mask = answers(model.train(), one_clip)
    for name in ("scores", "boxes", "patch_masks"):
        torch.testing.assert_close(getattr(trained, name), getattr(evaluated, name))
    torch.testing.assert_close(trained_mask, mask)


def recorded_dtypes(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Fills with the types that Fourier transforms and deformable samples are computed in."""
    dtypes = set()
    transform = torch.fft.rfft2

    def transformed(x: Tensor) -> Tensor:
        spectrum = transform(x)
        dtypes.update((x.dtype, spectrum.dtype))
        return spectrum

    def sampler(values: Tensor, shapes: Shapes) -> Sampler:
        dtypes.add(values.dtype)
        return bilinear_sampler(values, shapes)

    monkeypatch.setattr(torch.fft, "rfft2", transformed)
    monkeypatch.setattr("sgmg.deformable_attention.bilinear_sampler", sampler)
    return dtypes


def test_autocast_keeps_spectra_in_float32_and_comes_close(one_clip: OneClip, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken(TINY)
    full, full_mask = answers(model, one_clip)
    filtered = []
    for module in model.modules():
        if isinstance(module, SpectrumFilter):
            module.register_forward_hook(lambda _module, _inputs, output: filtered.append(output.dtype))
    dtypes, projected = recorded_dtypes(monkeypatch), []
    model.projections[0].register_forward_hook(lambda _module, _inputs, output: projected.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, mixed_mask = answers(model, one_clip)
    assert dtypes == {torch.float32, torch.complex64, torch.bfloat16}  # the last: values to sample
    assert filtered == 8 * [torch.float32]
    assert projected == [torch.bfloat16]  # so it was on
    assert mixed.scores.dtype == mixed.boxes.dtype == torch.float32
    torch.testing.assert_close(mixed.scores, full.scores, atol=0.1, rtol=0)
    torch.testing.assert_close(mixed.boxes, full.boxes, atol=0.02, rtol=0)
    assert (mixed_mask - full_mask).abs().mean() < 0.1 * full_mask.abs().mean()


@pytest.mark.usefixtures("in_float64")
def test_recomputed_activations_give_the_same_gradients(one_clip: OneClip) -> None:
    gradients = []
    for switch in (False, True):
        model = shaken(replace(TINY, activation_checkpointing=switch))
        out, mask = answers(model, one_clip)
        loss = out.scores.square().mean() + out.boxes.square().mean() + mask.square().mean()
        gradients.append(torch.autograd.grad(loss, tuple(model.parameters())))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("config", [replace(TINY, refine_boxes=False), replace(TINY, relative_coordinates=False)])
def test_the_options_of_the_published_code_change_the_model_and_run(config: SgMgConfig, one_clip: OneClip) -> None:
    model = shaken(config)
    assert len(model.class_heads) == (2 if config.refine_boxes else 1)
    assert model.kernel_head.last.out_features == 16 * (64 + 2 * config.relative_coordinates) + 288
    out, mask = answers(model, one_clip)
    for tensor in (out.scores, out.boxes, out.patch_masks, mask):
        assert tensor.isfinite().all()


def test_the_state_holds_what_is_learned_and_nothing_derivable() -> None:
    model = SgMg(TINY)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_heads_and_kernels_start_as_the_paper_has_them() -> None:
    model = SgMg(TINY)
    for head in model.class_heads:
        assert isinstance(head, nn.Linear)
        assert head.bias.item() == pytest.approx(-math.log(99))
    for name, weight in [*model.kernel_head.named_parameters(), *model.projections.named_parameters()]:
        if weight.dim() > 1:
            fan = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / fan), rel=0.01), name
        elif name.endswith("bias"):
            assert not weight.any(), name
    assert model.query_positions.std().item() == pytest.approx(1, abs=0.2)


def test_class_heads_made_new_leave_everything_else() -> None:
    model = shaken(TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset_class_heads()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"class_heads.{layer}.{kind}" for layer in range(2) for kind in ("weight", "bias")}


def test_the_tiny_model_is_tiny() -> None:
    assert sum(parameter.numel() for parameter in SgMg(TINY).parameters()) <= 5_000_000


@pytest.mark.parametrize("preset", PARAMETERS)
def test_a_preset_has_as_many_parameters_as_its_published_model(preset: str) -> None:
    with torch.device("meta"):
        model = SgMg(SgMgConfig.preset(preset))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[preset]
    assert isinstance(model.kernel_head, MLP)
    assert model.kernel_head.last.out_features == 4416
