"""Label Studio's run lengths of brushes: the format of thi.ng/rle-pack, decoded by its public description.

A stream of bits, most significant first: the number of words (32 bits), the size of a word less 1 (5 bits), four sizes
of run lengths less 1 (4 bits each). Then runs, until all words are there: 1 bit (1: one word, repeated; 0: each word
follows), which of the four sizes (2 bits), the length less 1 (so many bits), and the word or words.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from sgmg.masks import Size

_CHANNELS = 4  # red, green, blue, alpha
_HALF = 127
"""Alpha above which a pixel belongs to the object."""


def brush_mask(rle: Sequence[int], size: Size) -> Bool[np.ndarray, "h w"]:
    """Decodes the mask of a brush: pixels with an alpha above 127.

    Args:
        rle: bytes of the encoded RGBA image, row by row.
        size: (height, width) of the image.

    Raises:
        ValueError: the bytes are damaged, or belong to an image of another size.
    """
    words = unpack_rle(rle, size[0] * size[1] * _CHANNELS)
    return words.reshape(*size, _CHANNELS)[..., 3] > _HALF


def unpack_rle(rle: Sequence[int], count: int) -> UInt8[np.ndarray, " n"]:
    """Decodes `count` words of 8 bits.

    >>> unpack_rle([0, 0, 0, 3, 57, 27, 252, 95, 224], 3).tolist()
    [255, 255, 255]

    Raises:
        ValueError: the bytes are damaged, or hold another number of words.
    """
    if not all(type(one) is int and 0 <= one < 256 for one in rle):
        raise ValueError("its rle is no list of bytes")
    bits = np.unpackbits(np.array(rle, dtype=np.uint8))
    text = bits.astype(np.uint8).tobytes().translate(_DIGITS).decode()
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        if place > len(text):
            raise ValueError("its rle is cut short")
        return int(text[place - width : place], 2)

    found, word = read(32), read(5) + 1
    if (found, word) != (count, 8):
        raise ValueError(f"its rle holds {found} values of {word} bits, but its image has {count} of 8")
    sizes = [read(4) + 1 for _ in range(4)]
    words = np.empty(count, dtype=np.uint8)
    done = 0
    while done < count:
        repeated, length = read(1), read(sizes[read(2)]) + 1
        if done + length > count:
            raise ValueError(f"its rle holds more than {count} values")
        if repeated:
            words[done : done + length] = read(8)
        else:
            end = place + 8 * length
            if end > len(text):
                raise ValueError("its rle is cut short")
            words[done : done + length] = np.packbits(bits[place:end])
            place = end
        done += length
    return words


_DIGITS = bytes.maketrans(b"\0\1", b"01")
