"""Workaround that makes the CUDA build of torchvision importable with a CPU build of torch."""

import importlib.util
from pathlib import Path

import torch


def make_torchvision_importable() -> None:
    """Declares the two operators that `import torchvision` needs, if its own library cannot be loaded.

    timm imports torchvision; its nms and io are not used here. Nothing is declared if torchvision and
    torch are of the same build. Repeated calls do nothing.
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
