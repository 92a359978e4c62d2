"""Lets a CPU build of torch live with the torchvision of PyPI, which is built for CUDA."""

import importlib.util
from pathlib import Path

import torch


def make_torchvision_importable() -> None:
    """Declares the two operators `import torchvision` insists on, where its own library cannot be loaded.

    timm and transformers import torchvision; we use neither its nms nor its io. Where torchvision and torch are of
    one build, nothing is declared. Calling it again does nothing.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
