"""Reader of RefCOCO's refs file, a pickle: reads plain values only, and runs no code that the file names."""

import io
import pickle

from pipelines.errors import LayoutError

_PLAIN = frozenset({"bytearray", "complex", "frozenset", "set"})
"""Builtins that a pickle of plain values names; lists, dicts, numbers and strings have opcodes of their own."""

_BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)
"""Errors that the standard library raises for bytes that are no whole pickle."""


class _Refused(Exception):
    """The pickle names a class or function that is no plain value."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> object:
        if module_name in ("builtins", "__builtin__") and global_name in _PLAIN:  # the second: Python 2
            return super().find_class(module_name, global_name)
        raise _Refused(f"{module_name}.{global_name}")


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
