"""Backbones that see one frame at a time: Swin and ResNet."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from sgmg._torchvision import make_torchvision_importable
from sgmg.backbones.video_swin import SwinStages
from sgmg.config import ResNetConfig, SwinConfig


class ImageSwin(nn.Module):
    """Swin per frame, each of the four outputs normalized; merging takes the un-normalized one (spec 3).

    Parity: windows never shrink, and roll whatever the size. timm's Swin rolls before it pads and shrinks small
    windows, so its features are others where a side is not a multiple of 7.
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
    """A ResNet of timm per frame, with batch norm, stem and first stage frozen (spec 3)."""

    def __init__(self, config: ResNetConfig, *, activation_checkpointing: bool = False) -> None:
        super().__init__()
        make_torchvision_importable()
        import timm  # Here: it takes seconds, and only two presets need it.
        from timm.layers.norm_act import freeze_batch_norm_2d

        # zero_init_last would start residual branches at a frozen zero, from which no learning leads away.
        body = timm.create_model(config.name, features_only=True, out_indices=(1, 2, 3, 4), zero_init_last=False)
        body.set_grad_checkpointing(activation_checkpointing)  # pyright: ignore[reportCallIssue]
        self.body = freeze_batch_norm_2d(body)
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))

    def forward(self, frames: Float[Tensor, "b t 3 h w"]) -> tuple[Float[Tensor, "b t _ _ _"], ...]:
        features = self.body(rearrange(frames, "b t c h w -> (b t) c h w"))
        return tuple(rearrange(feature, "(b t) c h w -> b t c h w", b=len(frames)) for feature in features)
