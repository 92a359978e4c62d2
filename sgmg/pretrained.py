"""Lookup of published files in a folder, in the Hugging Face cache or, if allowed, on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor

ROBERTA = "roberta-base"

_MOVED = {"roberta-base": "FacebookAI/roberta-base"}
"""New names of repositories that the hub renamed; the cache may hold them under either name."""


def find_files(
    name_or_folder: str | PathLike[str], choices: Sequence[Sequence[str]], allow_download: bool = False
) -> tuple[Path, ...]:
    """Returns the files of the first complete choice, in the folder, else in the cache, else on the hub.

    A `Path`, or the name of an existing folder, is looked up as a folder only. There is no network call unless
    `allow_download` is set. `choices` are alternative sets of files, the preferred one first.

    Raises:
        FileNotFoundError: no choice is complete; the message says where to get one.
    """
    if isinstance(name_or_folder, PathLike) or Path(name_or_folder).is_dir():
        folder = Path(name_or_folder)
        found = _files_in(folder, choices)
        place, name = f"{folder} does not hold" if folder.is_dir() else f"There is no folder {folder} to hold", ROBERTA
    else:
        name = name_or_folder
        found = _cached_files(name, choices)
        place = f"{name!r} is not a folder, and the Hugging Face cache {constants.HF_HUB_CACHE} does not hold its"
        if found is None and allow_download:
            found = _downloaded_files(name, choices)
            place = f"The hub's {name!r} does not hold"
    if found is None:
        listed = ", nor ".join(" and ".join(files) for files in choices)
        # A path of a folder is not a name to download.
        repository = ROBERTA if name.startswith(("/", ".", "~")) else name
        raise FileNotFoundError(f"{place} {listed}. {_advice(repository)}")
    return found


def roberta_state(name_or_folder: str | PathLike[str] = ROBERTA, allow_download: bool = False) -> dict[str, Tensor]:
    """Reads the weights of a RoBERTa with pooler, under the names of `TextEncoder.roberta`.

    Reads model.safetensors, else pytorch_model.bin, looked up by `find_files`. The language model head is left out.

    Raises:
        FileNotFoundError: there is no such file; the message says where to get one.
        ValueError: the file has no pooler, which computes the sentence feature.
    """
    (path,) = find_files(name_or_folder, [["model.safetensors"], ["pytorch_model.bin"]], allow_download)
    if path.suffix == ".safetensors":
        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    state = {
        name.removeprefix("roberta."): weight
        for name, weight in weights.items()
        if not name.startswith("lm_head.") and not name.endswith(".position_ids")
    }
    if "pooler.dense.weight" not in state:
        raise ValueError(
            f"{path} has no pooler (roberta.pooler.dense.weight), from which the sentence feature is made. "
            f"Use the weights of {ROBERTA}, or save yours from a RobertaModel with add_pooling_layer=True."
        )
    return state


def _files_in(folder: Path, choices: Sequence[Sequence[str]]) -> tuple[Path, ...] | None:
    for files in choices:
        paths = tuple(folder / file for file in files)
        if all(path.is_file() for path in paths):
            return paths
    return None


def _cached_files(name: str, choices: Sequence[Sequence[str]]) -> tuple[Path, ...] | None:
    for known_as in (name, *([_MOVED[name]] if name in _MOVED else [])):
        for files in choices:
            try:
                found = [try_to_load_from_cache(known_as, file) for file in files]
            except HFValidationError:
                return None  # "weights/my/roberta": a folder that does not exist, not a name of the hub
            paths = [Path(file) for file in found if isinstance(file, str)]
            if len(paths) == len(files):
                return tuple(paths)
    return None


def _downloaded_files(name: str, choices: Sequence[Sequence[str]]) -> tuple[Path, ...] | None:
    for files in choices:
        try:
            return tuple(Path(hf_hub_download(name, file)) for file in files)
        except RemoteEntryNotFoundError:
            continue
        except (OSError, HFValidationError) as error:
            raise FileNotFoundError(f"The hub did not give {name!r}: {error} {_advice(name)}") from error
    return None


def _advice(name: str) -> str:
    folder = f"weights/{Path(name).name}"
    return (
        f"Get it once, where there is a network, with "
        f"`hf download {name} tokenizer.json model.safetensors --local-dir {folder}`, and give the folder {folder}."
    )
