"""Backbones for single frames: Swin and ResNet."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from sgmg._torchvision import make_torchvision_importable
from sgmg.backbones.video_swin import SwinStages
from sgmg.config import ResNetConfig, SwinConfig


class ImageSwin(nn.Module):
    """Swin for single frames, with a norm on each of the four outputs; merging takes the output before it (spec 3).

    Parity: windows never shrink, and are rolled at any size. timm's Swin rolls before padding and shrinks small
    windows, so its features differ if a side is not a multiple of 7.
    """

    def __init__(self, config: SwinConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.body = SwinStages(config, activation_checkpointing=activation_checkpointing)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in config.channels)

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> tuple[Float[Tensor, "b t _ _ _"], ...]:
        stages = self.body.features(rearrange(frames, "b t c h w -> (b t) 1 c h w"))
        return tuple(
            rearrange(norm(x), "(b t) 1 h w c -> b t c h w", b=len(frames))
            for norm, x in zip(self.norms, stages, strict=True)
        )


class ResNet(nn.Module):
    """ResNet of timm for single frames, with batch norm, stem and first stage frozen (spec 3)."""

    def __init__(self, config: ResNetConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        make_torchvision_importable()
        import timm  # Here: it takes seconds, and only two presets need it.
        from timm.layers.norm_act import freeze_batch_norm_2d

        # zero_init_last would initialise residual branches with zero in frozen norms, so they could never learn.
        body = timm.create_model(config.name, features_only=True, out_indices=(1, 2, 3, 4), zero_init_last=False)
        body.set_grad_checkpointing(activation_checkpointing)  # pyright: ignore[reportCallIssue]
        self.body = freeze_batch_norm_2d(body)
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> tuple[Float[Tensor, "b t _ _ _"], ...]:
        features = self.body(rearrange(frames, "b t c h w -> (b t) c h w"))
        return tuple(rearrange(feature, "(b t) c h w -> b t c h w", b=len(frames)) for feature in features)
