"""Reader of RefCOCO's refs file, a pickle: reads plain values only, and runs no code that the file names."""

import io
import pickle
import struct
from typing import Any, ClassVar

import numpy as np

from pipelines.errors import LayoutError

_COLLECTIONS = frozenset({"frozenset", "set"})
"""Builtins that a pickle of plain values names; lists, dicts, numbers and strings have opcodes of their own."""
_NUMBERS = frozenset(
    f"{kind}{size}" for kind, sizes in {"i": "1248", "u": "1248", "f": "248", "b": "1"}.items() for size in sizes
)
"""NumPy's kinds of numbers."""

_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors that the standard library raises for bytes that are no whole pickle."""


class _Refused(Exception):
    """Error: the pickle names a class or function that is no plain value."""


class _Kind:
    """A NumPy dtype of one number, for `_number`."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in _NUMBERS:
            raise _Refused(f"numpy.dtype({name!r})")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = str(state[1]) if len(state) > 1 and state[1] in ("<", ">", "|", "=") else "="


def _number(kind: _Kind, data: bytes | str) -> object:
    """Returns a NumPy scalar as Python's number, so that what is checked later is plain."""
    raw = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(raw, kind.order.replace("|", "") + kind.name)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """Returns the bytes that a pickle of protocol 2 wrote as text."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode({encoding!r})")
    return text.encode("latin-1")


_FUNCTIONS = {
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle._Unpickler):
    """Reader of plain values. Its base is Python's own: in C's a number in the file may reserve any memory."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        if module in ("builtins", "__builtin__") and name in _COLLECTIONS:  # the second: Python 2
            return super().find_class(module, name)
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        raise _Refused(f"{module}.{name}")

    def load_bytearray8(self) -> None:
        raise _Refused("a bytearray")

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_build(self) -> None:
        """Sets the state of a dtype; of anything else it could change what this module calls."""
        if not isinstance(self.stack[-2], _Kind):  # pyright: ignore[reportAttributeAccessIssue]
            raise _Refused(f"the state of a {type(self.stack[-2]).__name__}")  # pyright: ignore
        super().load_build()  # pyright: ignore[reportAttributeAccessIssue]

    dispatch[pickle.BUILD[0]] = load_build


def plain_pickle(data: bytes, path: str) -> object:
    """Returns the lists, dicts, numbers and strings of a pickle, of Python 2 or 3.

    Args:
        data: the whole file.
        path: its full path, for messages.

    Raises:
        LayoutError: the data is no pickle, is cut short, or needs more than plain values (it may try to run code).
    """
    try:
        try:
            return _loaded(data, "utf-8")
        except UnicodeDecodeError:  # Strings of Python 2 are bytes in an unspecified encoding.
            return _loaded(data, "latin-1")
    except _Refused as error:
        raise LayoutError(
            f"{path} wants {error}, but a refs file holds plain values only: it may try to run code, so it was not "
            f"read on. Take the file again from its owners."
        ) from None
    except _BROKEN as error:
        raise LayoutError(
            f"{path} is no whole pickle ({type(error).__name__}: {error}). Take the file again from its owners."
        ) from error


def _loaded(data: bytes, encoding: str) -> object:
    return _PlainUnpickler(io.BytesIO(data), encoding=encoding).load()
