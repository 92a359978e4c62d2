"""Building a model from given weights without initialising it first; mismatches are reported by name."""

import logging
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sgmg.config import SgMgConfig
from sgmg.fusion import Decoupling
from sgmg.model import SgMg
from sgmg.plain_types import plain_classes

_log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]

DECOUPLING = "decoupling."
"""Prefix of the weights that only a multi-object model has."""

NAMED = 3
"""Number of entries of each kind that a message names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class StateDictMismatch:
    """Differences between given weights and those of a model, as text; false if there are none.

    >>> str(StateDictMismatch.between({"a": (2,), "b": (1,)}, {"a": (3,), "c": (1,)}))
    '1 missing (c), 1 unexpected (b), 1 of another shape (a is (2,), not (3,))'
    >>> bool(StateDictMismatch.between({"a": (2,)}, {"a": (2,)}))
    False
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @classmethod
    def between(cls, given: Shapes, expected: Shapes) -> "StateDictMismatch":
        """Compares the names and shapes of `given` weights with the `expected` ones."""
        return cls(
            missing=tuple(name for name in expected if name not in given),
            unexpected=tuple(name for name in given if name not in expected),
            reshaped=tuple(
                f"{name} is {given[name]}, not {shape}"
                for name, shape in expected.items()
                if name in given and given[name] != shape
            ),
        )

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight, by name."""
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def meta_model(config: SgMgConfig) -> SgMg:
    """Returns a model whose weights are on the meta device, without values: built in 0.3 seconds instead of 4."""
    with _WithoutWeights():
        return SgMg(config)


class _WithoutWeights(TorchFunctionMode):
    """Neither allocates nor draws weights. What a model computes when it is built (`torch.arange` …) is computed.

    Under `torch.device("meta")`, draws on that device import torch's compiler, for 1.2 seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones):
            return func(*args, **kwargs | {"device": "meta"})
        drawn = args[0] if args else kwargs.get("tensor")  # `nn.init` hands it over by name
        draws = func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init"
        return drawn if draws and drawn is not None and drawn.is_meta else func(*args, **kwargs)


def load_into(model: SgMg, weights: Mapping[str, Tensor]) -> SgMg:
    """Loads copies of the weights, in their dtype, into a model of `meta_model`, and puts it into eval mode.

    Args:
        model: model on the meta device; it is returned.
        weights: the entries of its state dict; check them with `StateDictMismatch` first.
    """
    # Copies, since the readers map their files: replacing or truncating a file must not change a loaded model.
    model.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not left, f"buffers that no file holds must not be torch.empty, zeros or ones: {left}"
    return model.eval()


def with_decoupling(model: SgMg, config: SgMgConfig) -> SgMg:
    """Returns a multi-object model, in eval mode, that answers as the single-object one does, and says so in the log.

    Args:
        model: single-object model; its weights are copied.
        config: multi-object config of the same architecture.
    """
    _log.info(
        "the weights are of a single-object %s: the decoupling of the sentences of a clip is new", model.config.name
    )
    new = Decoupling(config.width).state_dict()
    return load_into(
        meta_model(config), model.state_dict() | {DECOUPLING + name: weight for name, weight in new.items()}
    )


def with_config(model: SgMg, config: SgMgConfig) -> SgMg:
    """Returns a model with another config and the same weights, in eval mode; the model itself if its config is equal.

    Args:
        model: its weights are copied.
        config: of the same architecture; how it computes may differ.
    """
    return model if model.config == config else load_into(meta_model(config), model.state_dict())


def read_torch_file(path: Path, origin: str) -> Any:
    """Reads a file of `torch.save` that holds tensors and plain values only, see `plain_types`.

    Args:
        path: path of the file.
        origin: where such files can be had, for the message if the file is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of `torch.save`, is cut short, or needs another class, which the message names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Get it from {origin}, or correct the path.")
    if packed := _packed_part(path):
        raise ValueError(
            f"{path} holds {packed} in compressed form, as torch.save never writes it: it could unpack to any size. "
            f"Get the file from a source you know."
        )
    try:
        with torch.serialization.safe_globals(plain_classes(path)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what is wrong with it is said below
            # Only tensors in use are read of a mapped file, not the optimiser state. Old files cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(_why_unreadable(path, error)) from error


def _packed_part(path: Path) -> str:
    """Returns the name of a part of a zip that is compressed; empty if none is, or the file is no zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, struct.error, NotImplementedError):
        return ""  # reading it says what it is
    return next((one.filename for one in parts if one.compress_type != zipfile.ZIP_STORED), "")


def _why_unreadable(path: Path, error: Exception) -> str:
    if unsafe := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} asks for {unsafe[1]}, which is not trusted: a checkpoint holds tensors and plain values. "
            f"Nothing of it was run. Get the file from a source you know."
        )
    if re.search(r"Unsupported operand 149\b", str(error)):  # with which later protocols begin
        return (
            f"{path} was saved with a pickle protocol above 2, which PyTorch does not read safely. Save it again with "
            f"torch.save(…), without pickle_protocol."
        )
    with path.open("rb") as file:
        cut = file.read(2) == b"PK" and not zipfile.is_zipfile(path)
    if cut:
        return f"{path} is cut short after {path.stat().st_size} bytes. Download or copy it again."
    return (
        f"{path} is not a file of torch.save that can be read, or it is damaged ({type(error).__name__}). "
        f"Give a .pth file, or the folder of a checkpoint."
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
