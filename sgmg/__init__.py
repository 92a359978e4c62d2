"""SgMg: referring video object segmentation (Miao et al., ICCV 2023), an independent implementation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgmg.config import SgMgConfig
    from sgmg.model import SgMg
    from sgmg.objective import Objective
    from sgmg.segmenter import Segmentation, Segmenter
    from sgmg.streaming import SegmenterStream, StreamAnswer
    from sgmg.tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = [
    "Objective",
    "Segmentation",
    "Segmenter",
    "SegmenterStream",
    "SgMg",
    "SgMgConfig",
    "StreamAnswer",
    "Tokenizer",
    "__version__",
]

_HOME = {
    "Objective": "sgmg.objective",
    "Segmentation": "sgmg.segmenter",
    "Segmenter": "sgmg.segmenter",
    "SegmenterStream": "sgmg.streaming",
    "SgMg": "sgmg.model",
    "SgMgConfig": "sgmg.config",
    "StreamAnswer": "sgmg.streaming",
    "Tokenizer": "sgmg.tokenizer",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `import sgmg` alone does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'sgmg' has no attribute {name!r}; public are {', '.join(__all__)}.")
    return getattr(import_module(_HOME[name]), name)
