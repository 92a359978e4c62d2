"""Model configurations as frozen, validated dataclasses, and the presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sgmg.plain_config import MOST_CHANNELS, MOST_LAYERS, check_kind, check_rate, check_stages, check_whole, from_fields

Precision = Literal["float32", "bfloat16", "float16"]
"""Number type of the matrix products in a forward pass."""
PrecisionChoice = Literal["auto", "float32", "bfloat16", "float16"]
"""What can be asked for; "auto" is the fastest that the device computes well: see `sgmg.precision`."""

STAGES = 4
"""Number of stages of every backbone: features at 1/4, 1/8, 1/16 and 1/32 of the frame."""
_WIDEST_WINDOW = 32  # tokens: a table of all pairs of tokens is computed when a model is built


@dataclass(frozen=True, slots=True)
class SwinConfig:
    """A shifted-window transformer over clips (`video`) or over single frames (spec 3).

    `window` is (frames, rows, columns) in tokens; `drop_path` is the rate of the last block.
    """

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    video: bool
    window: tuple[int, int, int]
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        check_whole(self, MOST_CHANNELS, "dim")
        check_stages(self, MOST_LAYERS, "depths", STAGES)
        check_stages(self, MOST_CHANNELS, "heads", STAGES)
        check_stages(self, _WIDEST_WINDOW, "window", 3)
        check_kind(self, bool, "video")
        check_rate(self, "drop_path")
        for stage, heads in enumerate(self.heads):
            if (self.dim << stage) % heads:
                raise ValueError(
                    f"Stage {stage} has {self.dim << stage} channels, which {heads} heads cannot share equally. "
                    f"Choose heads that divide the channels."
                )

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the features at 1/4, 1/8, 1/16, 1/32."""
        return (self.dim, self.dim * 2, self.dim * 4, self.dim * 8)


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """A ResNet of timm, per frame, with frozen batch norm (spec 3)."""

    name: Literal["resnet50", "resnet101"]

    def __post_init__(self) -> None:
        if self.name not in ("resnet50", "resnet101"):
            raise ValueError(f"Unknown ResNet {self.name!r}. Choose resnet50 or resnet101.")

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the features at 1/4, 1/8, 1/16, 1/32."""
        return (256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The sizes of a RoBERTa; the defaults are roberta-base."""

    vocabulary: int = 50265
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    max_tokens: int = 512
    dropout: float = 0.1
    initial_std: float = 0.02  # standard deviation of initial matrices without pretraining

    def __post_init__(self) -> None:
        check_whole(self, 2**20, "vocabulary")
        check_whole(self, MOST_CHANNELS, "width", "heads", "ffn", "max_tokens")
        check_whole(self, MOST_LAYERS, "layers")
        check_rate(self, "dropout", "initial_std")
        if self.width % self.heads:
            raise ValueError(f"Text width {self.width} cannot be shared by {self.heads} heads. Choose a multiple.")


@dataclass(frozen=True, slots=True)
class SgMgConfig:
    """Architecture and options of an SgMg model.

    `refine_boxes` and `relative_coordinates` are options of the published code, on in every published checkpoint.
    `activation_checkpointing` recomputes backbone blocks in the backward pass.
    With `multi_object`, the expressions of a clip share one pass of the encoder (the paper's multi-object SgMg, of
    which no code or weights were released); `sentences_per_clip` is the most that it was trained with.
    """

    name: str
    backbone: SwinConfig | ResNetConfig
    text: TextConfig = TextConfig()
    width: int = 256
    queries: int = 5
    heads: int = 8
    points: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 4
    ffn: int = 2048
    dropout: float = 0.1
    refine_boxes: bool = True
    relative_coordinates: bool = True
    activation_checkpointing: bool = False
    multi_object: bool = False
    sentences_per_clip: int = 8

    def __post_init__(self) -> None:
        check_kind(self, str, "name")
        check_kind(self, SwinConfig | ResNetConfig, "backbone")
        check_kind(self, TextConfig, "text")
        check_kind(self, bool, "refine_boxes", "relative_coordinates", "activation_checkpointing", "multi_object")
        check_whole(self, MOST_CHANNELS, "width", "heads", "queries", "ffn", "sentences_per_clip")
        check_whole(self, MOST_LAYERS, "points", "encoder_layers", "decoder_layers")
        check_rate(self, "dropout")
        if self.width % 32 or self.width % self.heads:
            raise ValueError(
                f"width={self.width} must be a multiple of 32 (group norm) and of heads={self.heads} (attention)."
            )

    @classmethod
    def preset(cls, name: str) -> SgMgConfig:
        """Returns the preset of that name.

        >>> SgMgConfig.preset("video-swin-t").backbone.channels
        (96, 192, 384, 768)

        Raises:
            ValueError: the name is not a preset; the message lists them.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}. Choose one of: {', '.join(PRESETS)}.")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as plain values for JSON; `from_dict` is the inverse."""
        return {**dataclasses.asdict(self), "backbone": _backbone_to_dict(self.backbone)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SgMgConfig:
        """Returns the config of values made by `to_dict`.

        Raises:
            ValueError: a field is unknown or missing, or its value of another type or out of range; the message names
                it.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"The saved model config is a {type(values).__name__}, not an object. Save it again.")
        rest = dict(values)
        try:
            return from_fields(
                cls,
                rest
                | {"backbone": _backbone_from_dict(rest["backbone"]), "text": from_fields(TextConfig, rest["text"])},
            )
        except KeyError as missing:
            raise ValueError(f"The saved model config lacks {missing}. Save the checkpoint again.") from None


def _backbone_to_dict(backbone: SwinConfig | ResNetConfig) -> dict[str, Any]:
    kind = "swin" if isinstance(backbone, SwinConfig) else "resnet"
    return {"kind": kind, **dataclasses.asdict(backbone)}


def _backbone_from_dict(values: object) -> SwinConfig | ResNetConfig:
    if not isinstance(values, Mapping):
        raise ValueError(f"The saved backbone is a {type(values).__name__}, not an object. Save the checkpoint again.")
    rest = dict(values)
    kind = rest.pop("kind")
    match kind:
        case "swin":
            return from_fields(SwinConfig, rest)
        case "resnet":
            return from_fields(ResNetConfig, rest)
        case _:
            raise ValueError(f"Unknown backbone kind {kind!r} in the saved config. Choose swin or resnet.")


def _video_swin(dim: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> SwinConfig:
    return SwinConfig(dim, depths, heads, video=True, window=(8, 7, 7), drop_path=0.2)


def _image_swin(dim: int, depths: tuple[int, ...], heads: tuple[int, ...], drop_path: float) -> SwinConfig:
    return SwinConfig(dim, depths, heads, video=False, window=(1, 7, 7), drop_path=drop_path)


_BACKBONES: dict[str, SwinConfig | ResNetConfig] = {
    "video-swin-t": _video_swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "video-swin-s": _video_swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "video-swin-b": _video_swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "resnet50": ResNetConfig("resnet50"),
    "resnet101": ResNetConfig("resnet101"),
    "swin-t": _image_swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2),
    "swin-s": _image_swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.2),
    "swin-b": _image_swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.3),
    "swin-l": _image_swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 0.3),
}

_TINY = SgMgConfig(
    "tiny",
    SwinConfig(32, (2, 2, 2, 2), (1, 2, 4, 8), video=True, window=(8, 7, 7), drop_path=0.0),
    # Trained from scratch, the matrices must keep the scale, 1/sqrt(128): with RoBERTa's 0.02 the features of all
    # sentences are nearly equal at first, and the model ignores the text for a long time. More layers do the same: with
    # one, it uses the text after 80 steps of plain sentences, with four not after 240.
    TextConfig(vocabulary=2000, width=128, layers=1, heads=4, ffn=512, max_tokens=512, dropout=0.0, initial_std=0.09),
    width=64,
    encoder_layers=2,
    decoder_layers=2,
    ffn=256,
    dropout=0.0,
)
"""Small model for demos and tests, trained from scratch on a CPU in minutes; without dropout, as it underfits."""

PRESETS: dict[str, SgMgConfig] = {name: SgMgConfig(name, backbone) for name, backbone in _BACKBONES.items()} | {
    "tiny": _TINY
}
