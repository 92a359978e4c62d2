"""Zips of strangers, read without unpacking them to disk and without trusting what they say of themselves."""

import struct
import zipfile
import zlib
from typing import IO

import pyarrow as pa

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pa.ArrowException,
    EOFError,
    OSError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    ValueError,
)
"""What Python raises for damage. RuntimeError: an encrypted entry; NotImplementedError: one of an unknown packing."""
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks the others without a limit


class TooLarge(ValueError):
    """Error: a file has more bytes than are read of its kind."""


def bounded(stream: IO[bytes], most: int) -> bytes:
    """Reads a file whole.

    Args:
        stream: the open file.
        most: bytes that it may have.

    Raises:
        TooLarge: it has more, of which no more is read than shows it.
    """
    data = stream.read(most + 1)
    if len(data) > most:
        raise TooLarge(f"it has more than {most} bytes, the most that are read of such a file")
    return data


def unpacked(archive: zipfile.ZipFile, entry: str, most: int) -> bytes:
    """Reads an entry of a zip whole; the size in its header, which may lie, is not believed.

    Args:
        archive: the zip.
        entry: name as it is stored.
        most: bytes that it may have.

    Raises:
        ValueError: it has more, is damaged or encrypted, or is packed otherwise than by deflate.
    """
    info = archive.getinfo(entry)
    if info.compress_type not in _PACKINGS:
        raise ValueError(f"it is packed by method {info.compress_type} of zip, but only deflate is read. Zip it again")
    try:
        with archive.open(info) as stream:
            return bounded(stream, most)
    except TooLarge:
        raise
    except DAMAGE as error:
        raise ValueError(f"it is damaged ({error})") from error


def with_slashes(name: str) -> str:
    r"""Returns the name of an entry with slashes: some zips of Windows have backslashes.

    >>> with_slashes(r"a\b.png")
    'a/b.png'
    """
    return name.replace("\\", "/")


def stored_names(archive: zipfile.ZipFile) -> dict[str, str]:
    """Returns the stored name of each entry by its name with slashes."""
    return {with_slashes(name): name for name in archive.namelist()}
