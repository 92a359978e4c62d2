"""Models made of given weights: nothing is drawn only to be thrown away, and what does not fit is said."""

import argparse
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgmg.backbones.video_swin import Block
from sgmg.backbones.windows import relative_position_index
from sgmg.config import SgMgConfig
from sgmg.model import SgMg

Shapes = Mapping[str, tuple[int, ...]]

NAMED = 3
"""Entries of each kind that a message names; it counts the rest."""


@dataclass(frozen=True, slots=True)
class StateDictMismatch:
    """Why weights do not fit a model; false where they do.

    >>> str(StateDictMismatch.between({"a": (2,), "b": (1,)}, {"a": (3,), "c": (1,)}))
    '1 missing (c), 1 unexpected (b), 1 of another shape (a is (2,), not (3,))'
    >>> bool(StateDictMismatch.between({"a": (2,)}, {"a": (2,)}))
    False
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @classmethod
    def between(cls, given: Shapes, wanted: Shapes) -> "StateDictMismatch":
        """What keeps `given` from being loaded where `wanted` is expected."""
        return cls(
            missing=tuple(name for name in wanted if name not in given),
            unexpected=tuple(name for name in given if name not in wanted),
            reshaped=tuple(
                f"{name} is {given[name]}, not {shape}"
                for name, shape in wanted.items()
                if name in given and given[name] != shape
            ),
        )

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name → shape."""
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def meta_model(config: SgMgConfig) -> SgMg:
    """The model without its numbers, on the meta device: a quarter of a second instead of four."""
    with torch.device("meta"):
        return SgMg(config)


def load_into(model: SgMg, weights: Mapping[str, Tensor]) -> SgMg:
    """Gives a blank model copies of these weights, in their dtype, and puts it into eval mode.

    Args:
        model: of `meta_model`; it is returned.
        weights: exactly the entries of its state dict; `StateDictMismatch` tells beforehand.
    """
    # Copies, since the readers map their files: one that is replaced or cut must not reach into a living model.
    model.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    _make_unsaved_buffers(model)
    return model.eval()


def read_torch_file(path: Path, origin: str) -> Any:
    """What `torch.save` wrote of tensors, plain values and an argparse Namespace; nothing else is ever made.

    Args:
        path: of the file.
        origin: where such a file comes from, for the error that it is missing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, is cut short, or asks for another class, which the message names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Get it from {origin}, or correct the path.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # A mapped file is read only where somebody looks: not the optimiser behind the weights. Old ones cannot be.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(_why_unreadable(path, error)) from error


def _make_unsaved_buffers(model: SgMg) -> None:
    """The buffers that no file holds, as their modules make them; the meta device left them empty."""
    for module in model.modules():
        if isinstance(module, Block):
            module.attention.index = relative_position_index(module.full)
    embeddings = model.text.roberta.embeddings
    positions = embeddings.position_ids.shape[1]
    embeddings.register_buffer("position_ids", torch.arange(positions)[None], persistent=False)
    embeddings.register_buffer("token_type_ids", torch.zeros(1, positions, dtype=torch.int64), persistent=False)
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not left, f"buffers that no file holds need a line here: {left}"


def _why_unreadable(path: Path, error: Exception) -> str:
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"{path} asks for {wanted[1]}, which is not trusted: a checkpoint holds tensors, plain values and an "
            f"argparse Namespace. Nothing of it was run. Get the file from a source you know."
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
