"""Encoding and decoding of PNGs of masks and object ids, in as few bits per pixel as their readers allow.

A mask has 2 bits of grey, which Pillow and OpenCV read as mode L with 0 and 255, like 8 bits. (1 bit would be read as
mode 1.) Rows are unfiltered, since flat areas compress better that way: 1.9 KB at 1280x720, Pillow's PNG has 3.4 KB.
"""

import struct
import zlib

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from pipelines.images import opened_image, voc_palette
from sgmg.masks import Size

_GREY, _PALETTE = 0, 3  # colour types of PNG
_LEVEL = 8  # of zlib: 20 % smaller than 6 at half the speed; 9 gains 2 % more and halves it again


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """Encodes a mask as a PNG of mode L: 255 at the object, 0 elsewhere.

    >>> decode_mask(encode_mask(np.array([[True, False]]))).tolist()
    [[True, False]]
    """
    return _png(mask.view(np.uint8) * np.uint8(3), 2, _GREY)


def encode_object_map(ids: Integer[np.ndarray, "h w"], bits: int | None = None) -> bytes:
    """Encodes object ids, 0 … 255, as a PNG of mode P with the colours of DAVIS.

    Args:
        ids: of the pixels; 0 is the background.
        bits: of a pixel: 1, 2, 4 or 8; None: as few as hold these ids. The palette has 2**bits colours, so that with 8
            an editor may paint any id.

    >>> decode_object_map(encode_object_map(np.array([[0, 20]]))).tolist()
    [[0, 20]]

    Raises:
        ValueError: an id does not fit into so many bits.
    """
    fitting = [one for one in (1, 2, 4, 8) if ids.max() < 2**one and bits in (None, one)]
    if ids.min() < 0 or not fitting:
        raise ValueError(
            f"Object ids go from {ids.min()} to {ids.max()}, but this palette PNG holds 0 … {2 ** (bits or 8) - 1}."
        )
    bits = fitting[0]
    return _png(ids.astype(np.uint8), bits, _PALETTE)


def decode_mask(data: bytes, size: Size | None = None) -> Bool[np.ndarray, "h w"]:
    """Decodes a mask from a PNG of mode L that holds only 0 and 255.

    Args:
        size: required height and width; None allows any.

    Raises:
        ValueError: the data is not such a PNG, is damaged or cut short, or has another size.
    """
    pixels = _pixels(data, "L", size)
    mask = pixels == 255
    if np.count_nonzero(pixels) != np.count_nonzero(mask):
        odd = pixels[(pixels != 0) & ~mask]
        raise ValueError(f"the mask holds the value {odd[0]}, but only 0 and 255 are allowed. Write 255 at the object")
    return mask


def decode_object_map(data: bytes, size: Size | None = None) -> UInt8[np.ndarray, "h w"]:
    """Decodes the object id of every pixel from a PNG of mode P.

    Args:
        size: required height and width; None allows any.

    Raises:
        ValueError: the data is not such a PNG, is damaged or cut short, or has another size.
    """
    return _pixels(data, "P", size)


def _pixels(data: bytes, mode: str, size: Size | None) -> UInt8[np.ndarray, "h w"]:
    with opened_image(data, formats=("PNG",)) as image:
        found = (image.height, image.width)
        if image.mode != mode:
            raise ValueError(f"the PNG has mode {image.mode}, but mode {mode} is needed. Convert it")
        if size is not None and found != size:  # before any pixel is decoded: a small file may claim any size
            raise ValueError(f"the PNG has height, width {found}, but {size} is needed. Write the original size")
        return np.asarray(image)


def _png(values: UInt8[np.ndarray, "h w"], bits: int, colour: int) -> bytes:
    height, width = values.shape
    packed = _packed(values, bits)
    rows = np.zeros((height, packed.shape[1] + 1), dtype=np.uint8)  # a row begins with its filter: 0, none
    rows[:, 1:] = packed
    palette = _chunk(b"PLTE", voc_palette(2**bits)) if colour == _PALETTE else b""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)),
            palette,
            _chunk(b"IDAT", zlib.compress(rows.data, _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def _packed(values: UInt8[np.ndarray, "h w"], bits: int) -> UInt8[np.ndarray, "h bytes"]:
    """Packs several pixels into each byte, the leftmost in the highest bits."""
    each = 8 // bits
    packed = np.zeros((values.shape[0], -(-values.shape[1] // each)), dtype=np.uint8)
    for place in range(each):
        part = values[:, place::each]
        packed[:, : part.shape[1]] |= part << (8 - bits * (place + 1))
    return packed


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
