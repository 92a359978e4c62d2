"""RoBERTa of transformers, which imports torchvision: that must be importable first."""

from sgmg._torchvision import make_torchvision_importable

make_torchvision_importable()

from transformers import RobertaConfig, RobertaModel  # noqa: E402

__all__ = ["RobertaConfig", "RobertaModel"]
