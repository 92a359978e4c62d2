"""Loading of pretrained backbones at the start of training: Kinetics (Video Swin), ImageNet (Swin and ResNet)."""

import re
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sgmg.backbones.image import ImageSwin
from sgmg.backbones.video_swin import VideoSwin
from sgmg.model import SgMg
from sgmg.published import DERIVED, load_kinetics, published_names
from sgmg.weights import StateDictMismatch, read_torch_file, shapes_of

_CLASSIFIER = re.compile(r"^(fc|head)\.|^norm\.|attn_mask$|num_batches_tracked$")
"""Entries of ImageNet files that are not loaded: the classifier, and values that follow from the others."""
_OUTPUT_NORM = re.compile(r"^norm[0-3]\.")
"""Norms of Swin's outputs, which ImageNet files lack; they keep their initial values (spec 3)."""


def load_backbone(model: SgMg, path: str | PathLike[str]) -> None:
    """Loads pretrained weights into the backbone of a model.

    Args:
        model: model to change.
        path: file that fits the backbone: for Video Swin a Kinetics file of its authors (`load_kinetics`), for Swin an
            ImageNet file of its authors, for ResNet a file of timm's `resnet50.tv_in1k` or
            `resnet101.tv_in1k` (.safetensors or .pth).

    Raises:
        FileNotFoundError: there is no such file; the message says where to get it.
        ValueError: the file is unreadable or unsafe, or does not fit.
    """
    path = Path(path)
    if isinstance(model.backbone, VideoSwin):
        load_kinetics(model, path)
        return
    given = {name: weight for name, weight in _imagenet(path).items() if not _left_out(name)}
    names = _imagenet_names(model)
    expected = {theirs: model.state_dict()[ours] for ours, theirs in names.items()}
    if misfit := StateDictMismatch.between(shapes_of(given), shapes_of(expected)):
        raise ValueError(
            f"{path} does not fit the backbone of {model.config.name}: {misfit}. Get the file of that backbone, or "
            f"choose the preset that the file is for."
        )
    model.load_state_dict(model.state_dict() | {ours: given[theirs] for ours, theirs in names.items()})


def _imagenet(path: Path) -> dict[str, Tensor]:
    origin = "timm's page on the Hugging Face hub (resnet50.tv_in1k, …) or the release page of Swin's authors"
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or cut short ({error}). Get it again from {origin}.") from error
    content = read_torch_file(path, origin)
    weights = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{path} holds no weights by name. Get it from {origin}.")
    return weights


def _imagenet_names(model: SgMg) -> dict[str, str]:
    """Returns the name in an ImageNet file for each of our names."""
    if not isinstance(model.backbone, ImageSwin):
        names = {
            name: name.removeprefix("backbone.body.") for name in model.state_dict() if name.startswith("backbone.")
        }
    else:
        published = published_names(model).items()
        names = {
            ours: name.removeprefix("backbone.0.body.") for ours, name in published if ours.startswith("backbone.")
        }
    return {ours: theirs for ours, theirs in names.items() if not _left_out(theirs) and not _OUTPUT_NORM.match(theirs)}


def _left_out(name: str) -> bool:
    return bool(_CLASSIFIER.search(name) or DERIVED.search(name))
