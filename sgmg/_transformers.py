"""Import of RoBERTa from transformers, after torchvision, which transformers imports, is made importable."""

from sgmg._torchvision import make_torchvision_importable

make_torchvision_importable()

from transformers import RobertaConfig, RobertaModel  # noqa: E402

__all__ = ["RobertaConfig", "RobertaModel"]
