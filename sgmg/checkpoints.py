"""Checkpoints: writing them atomically as folders, and reading these folders and the published `.pth` files."""

import json
import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sgmg.config import SgMgConfig
from sgmg.json_text import parse_json
from sgmg.model import SgMg
from sgmg.published import load_published
from sgmg.tokenizer import Tokenizer
from sgmg.weights import StateDictMismatch, load_into, meta_model, read_torch_file, shapes_of, with_decoupling

FORMAT = 1
"""Format version of config.json; a checkpoint with a higher one needs a newer sgmg."""

MODEL, CONFIG, TOKENIZER, TRAINING = "model.safetensors", "config.json", "tokenizer.json", "training.pt"
AVERAGED = "model_ema.safetensors"
"""Moving average of the weights, beside them if there is one. `load` takes the path of this file, too."""

_PLAIN = (type(None), bool, int, float, str)
_LISTS = (list, tuple)
_DICTS = (dict, OrderedDict, Counter)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model in eval mode, its tokenizer (None: that of roberta-base) and its notes."""

    path: Path
    model: SgMg
    tokenizer: Tokenizer | None
    notes: Mapping[str, Any]

    def training(self) -> dict[str, Any]:
        """Reads the training state that was given to `save`, onto the CPU.

        Raises:
            FileNotFoundError: the checkpoint has no training state.
        """
        if not (self.path / TRAINING).is_file():
            raise FileNotFoundError(
                f"{self.path} has no {TRAINING}: training cannot be resumed from it. Start a new run from its weights."
            )
        return read_torch_file(self.path / TRAINING, "the run that wrote it")

    def averaged(self) -> dict[str, Tensor]:
        """Reads the moving average of the weights that was given to `save`, onto the CPU.

        Raises:
            FileNotFoundError: the checkpoint has none.
        """
        if not (self.path / AVERAGED).is_file():
            raise FileNotFoundError(f"{self.path} has no {AVERAGED}: it was trained without --ema.")
        return load_file(self.path / AVERAGED)


def save(
    folder: str | PathLike[str],
    model: SgMg,
    *,
    weights: Mapping[str, Tensor] | None = None,
    averaged: Mapping[str, Tensor] | None = None,
    tokenizer: Tokenizer | None = None,
    training: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint atomically: if the process is killed, the previous checkpoint of the folder stays intact.

    Args:
        folder: created if missing; a checkpoint in it is replaced once the new one is complete.
        model: model to save; weights keep their dtype.
        weights: weights to save instead of those of the model, under the same names (a copy, if training goes on).
        averaged: moving average of the weights, under the same names, to save beside them.
        tokenizer: tokenizer of the model; None means that of roberta-base.
        training: state of optimiser, schedule, scaler, and the step: tensors and plain values only.
        notes: JSON values about data, metrics and licence; tuples are read back as lists.

    Raises:
        TypeError: `training` or `notes` holds another type; the message says where.
        FileExistsError: the folder holds other files, which would be lost.
        OSError: the disk is full, or permission is denied; the previous checkpoint is unchanged.
    """
    _check_plain(training, "training", (Tensor, nn.Parameter))
    _check_plain(notes, "notes", ())
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    fresh = folder.with_name(f".{folder.name}.unfinished")
    try:
        _remove(fresh)  # left by a save that was killed
        fresh.mkdir(parents=True)
        _write(fresh, model, model.state_dict() if weights is None else weights, averaged, tokenizer, training, notes)
        _put_in_place(fresh, folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # what torch and safetensors raise for a full disk
        raise OSError(
            f"The checkpoint {folder} could not be written: {error}. If it was there before, it is still whole. "
            f"Make room, or choose another folder."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load(path: str | PathLike[str], *, preset: str | SgMgConfig | None = None) -> Checkpoint:
    """Loads a checkpoint: a folder written by `save`, or a published `.pth` file.

    Args:
        path: folder or file; also a file of weights in a folder, which is how averaged ones are loaded.
        preset: config of the model instead of the one in the checkpoint; the weights must fit it.

    Raises:
        FileNotFoundError: the path does not exist, or the folder lacks files; the message says where to get it.
        ValueError: a file is unreadable or unsafe, has a newer format, or does not fit; the message says which.
    """
    path = Path(path).resolve()
    config = SgMgConfig.preset(preset) if isinstance(preset, str) else preset
    if path.is_file() and path.name in (MODEL, AVERAGED):
        return _load_folder(path.parent, config, path.name)
    if path.is_file():
        return Checkpoint(path, load_published(path, config), None, {})
    folder = path if path.exists() else _previous(path)
    if not folder.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {path}. Give a folder that training wrote, or a .pth file from the release page "
            f"of the paper's authors."
        )
    return _load_folder(folder, config)


def files_of(path: Path) -> list[Path]:
    """Returns the files that make the model of a checkpoint: a published file, or those of a folder.

    Args:
        path: as in `load`. The path of a file of weights gives these, and what lies beside them.
    """
    if path.is_dir():
        return [path / CONFIG, path / MODEL, path / TOKENIZER]
    if path.name in (MODEL, AVERAGED):
        return [path.parent / CONFIG, path, path.parent / TOKENIZER]
    return [path]


def saved_tokenizer(path: Path) -> Tokenizer | None:
    """Reads the tokenizer that was saved with a checkpoint; None means that of roberta-base.

    Raises:
        ValueError: it is damaged.
    """
    file = next((file for file in files_of(path) if file.name == TOKENIZER and file.is_file()), None)
    return Tokenizer.from_folder(file.parent) if file else None


def load_pretrained(model: SgMg, path: str | PathLike[str]) -> Tokenizer | None:
    """Loads all weights of a checkpoint except the class heads, which are initialised anew (spec 11).

    A multi-object model that starts from a single-object one keeps those heads: it begins as that model answers.

    Args:
        model: model on any device.
        path: as in `load`.

    Returns:
        The tokenizer the weights were trained with; None means that of roberta-base.

    Raises:
        FileNotFoundError: as in `load`.
        ValueError: as in `load`, or the checkpoint has another architecture than the model.
    """
    found = load(path)
    begins_as = model.config.multi_object and not found.model.config.multi_object
    if begins_as:
        found = replace(found, model=with_decoupling(found.model, replace(found.model.config, multi_object=True)))
    if found.model.config.multi_object and not model.config.multi_object:
        raise ValueError(
            f"{path} is a multi-object model, which answers several sentences together; this {model.config.name} is "
            f"not. Train it with --multi-object (SgMgConfig(multi_object=True))."
        )
    given = _but_class_heads(found.model)
    if misfit := StateDictMismatch.between(shapes_of(given), shapes_of(_but_class_heads(model))):
        raise ValueError(
            f"{path} is a {found.model.config.name}, which does not fit this {model.config.name}: {misfit}. "
            f"Make the model from the checkpoint's config."
        )
    model.load_state_dict(model.state_dict() | (found.model.state_dict() if begins_as else given))
    if not begins_as:
        model.reset_class_heads()
    return found.tokenizer


def _but_class_heads(model: SgMg) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("class_heads.")}


def _load_folder(folder: Path, config: SgMgConfig | None, file: str = MODEL) -> Checkpoint:
    if missing := [name for name in (CONFIG, MODEL) if not (folder / name).is_file()]:
        held = ", ".join(sorted(file.name for file in folder.iterdir())[:5]) or "nothing"
        raise FileNotFoundError(
            f"{folder} is no checkpoint: it lacks {' and '.join(missing)}, and holds {held}. Give the folder that "
            f"training wrote, or a published .pth file itself."
        )
    saved, notes = _read_config(folder / CONFIG)
    config = config or saved
    try:
        weights = load_file(folder / file)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"{folder / file} is damaged or cut short ({error}). Use another checkpoint.") from error
    if config.multi_object and not saved.multi_object:
        single = _load_folder(folder, replace(config, multi_object=False), file)
        return replace(single, model=with_decoupling(single.model, config))
    if saved.multi_object and not config.multi_object:
        raise ValueError(
            f"{folder} is a multi-object model, but {config.name} was asked for without multi_object. Give "
            f"SgMgConfig(multi_object=True), in training --multi-object, or no config at all."
        )
    model = meta_model(config)
    if misfit := StateDictMismatch.between(shapes_of(weights), shapes_of(model.state_dict())):
        raise ValueError(f"{folder / file} does not fit the config {config.name}: {misfit}. Use another checkpoint.")
    return Checkpoint(folder, load_into(model, weights), saved_tokenizer(folder), notes)


def _read_config(path: Path) -> tuple[SgMgConfig, dict[str, Any]]:
    try:
        values = parse_json(path.read_bytes())
        version, notes = values["format"], values["notes"]
        if type(version) is not int or not isinstance(notes, dict):
            raise ValueError(f"format is {str(version)[:40]}, not a number, or notes are no object")
        if version > FORMAT:
            raise ValueError(f"it has format {version}, newer than the {FORMAT} of this sgmg. Update sgmg")
        return SgMgConfig.from_dict(values["model"]), notes
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}. It must be as sgmg.checkpoints.save wrote it.") from error


def _check_plain(value: object, place: str, leaves: tuple[type, ...]) -> None:
    """Refuses values that would need unpickling of arbitrary classes. Compares exact types: numpy floats are floats."""
    if type(value) in _DICTS:
        for key, item in value.items():  # pyright: ignore[reportAttributeAccessIssue]
            if type(key) is not str and not (leaves and type(key) is int):  # JSON would make a string of an integer
                raise TypeError(f"{place} has the key {key!r}, a {type(key).__name__}. Use a string.")
            _check_plain(item, f"{place}[{key!r}]", leaves)
    elif type(value) in _LISTS:
        for index, item in enumerate(value):  # pyright: ignore[reportArgumentType]
            _check_plain(item, f"{place}[{index}]", leaves)
    elif type(value) not in (*_PLAIN, *leaves):
        kinds = "tensors and plain values" if leaves else "plain values"
        raise TypeError(
            f"{place} is a {type(value).__module__}.{type(value).__qualname__}, but a checkpoint holds {kinds} only. "
            f"Convert it: numbers with int() or float(), a path with str(), an object with its state_dict()."
        )


def _check_replaceable(folder: Path) -> None:
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file; a checkpoint is a folder. Choose another name.")
    held = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    held = {name for name in held if name != ".DS_Store" and not name.startswith("._")}  # macOS leaves them anywhere
    if foreign := sorted(held - {MODEL, AVERAGED, CONFIG, TOKENIZER, TRAINING}):
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign[:5])}, which a new checkpoint would remove. Choose another folder."
        )


def _write(
    folder: Path,
    model: SgMg,
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor] | None,
    tokenizer: Tokenizer | None,
    training: Mapping[str, Any] | None,
    notes: Mapping[str, Any] | None,
) -> None:
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / MODEL)
    if averaged is not None:
        save_file({name: weight.contiguous() for name, weight in averaged.items()}, folder / AVERAGED)
    config = {"format": FORMAT, "model": model.config.to_dict(), "notes": notes or {}}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)
    if training is not None:
        torch.save(training, folder / TRAINING)
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Renames `fresh` to `folder`, after renaming an old folder to a name where `load` still finds it."""
    previous = _previous(folder)
    if folder.exists():
        _remove(previous)
        folder.rename(previous)
    fresh.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)  # remains are removed by the next save


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    """Flushes a file or folder to disk, so that a renamed folder is not empty after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
