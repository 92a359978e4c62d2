"""The classes that a file of `torch.save` may name: plain values, which hold data and run nothing."""

import argparse
import datetime
import pathlib
import pickletools
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray

_TRUSTED_ROOTS = ("torch", "numpy", "builtins", "__builtin__", *sys.stdlib_module_names)
"""Modules whose classes are taken by name only, from the list below."""


class Unread:
    """Stand-in for an enum member of a class that is not looked up: keeps its value.

    >>> Unread("adamw")
    Unread('adamw')
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Unread({self.value!r})"


def plain_classes(path: Path) -> list[Any]:
    """Returns what `torch.serialization.safe_globals` takes to read a file.

    That is: argparse's Namespace, paths, dates, NumPy's scalars and arrays, and `Unread` in place of every class that
    the file calls with one value, as it does for the members of an enum. None of these runs code of the file.

    Args:
        path: of the file.
    """
    dtypes = [type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"]
    scalars = [(multiarray.scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    arrays = [
        (multiarray._reconstruct, f"{module}.multiarray._reconstruct") for module in ("numpy.core", "numpy._core")
    ]
    # A path of Windows is read on any system, but not opened. Python 3.13 has another module for them.
    kinds = {name: getattr(pathlib, name) for name in ("PosixPath", "PurePosixPath", "PureWindowsPath")}
    kinds["WindowsPath"] = pathlib.PureWindowsPath
    paths = [(kind, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name, kind in kinds.items()]
    dates = [datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone]
    enums = [(Unread, name) for name in _enum_classes(path)]
    return [argparse.Namespace, *paths, *dates, np.dtype, np.ndarray, *dtypes, *scalars, *arrays, *enums]


def _enum_classes(path: Path) -> Iterator[str]:
    """Yields the classes that a file calls with one plain value, but those of modules that could do something."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            data = archive.read(name)
        found: list[str] = []
        operations = list(pickletools.genops(data))
    except Exception:  # no zip, or damaged: reading it says so
        return
    for place, (operation, argument, _) in enumerate(operations):
        if operation.name != "GLOBAL":
            continue
        named = str(argument).replace(" ", ".")
        if named.partition(".")[0] not in _TRUSTED_ROOTS and _is_called_with_one_value(operations, place + 1):
            found.append(named)
    yield from dict.fromkeys(found)


def _is_called_with_one_value(operations: list[Any], place: int) -> bool:
    """Returns whether a constant, a tuple of it and a call follow, whatever is remembered between."""
    names = [operation.name for operation, _, _ in operations[place : place + 8]]
    names = [name for name in names if name not in ("BINPUT", "LONG_BINPUT", "MEMOIZE", "PUT")]
    constants = ("SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINGET")
    return len(names) > 2 and names[0] in constants and names[1:3] == ["TUPLE1", "REDUCE"]
