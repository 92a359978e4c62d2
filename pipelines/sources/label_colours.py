"""Masks whose objects have colours: which id a colour means, by a `labelmap.txt` or the palette of PASCAL VOC."""

import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from pipelines.errors import LayoutError, shown
from pipelines.files import Folder
from pipelines.images import opened_image, voc_palette, white_of
from pipelines.sources.reading import annotation_text

LABEL_MAP = "labelmap.txt"
"""What CVAT writes beside coloured masks: a line for each label, `name:red,green,blue:parts:actions`."""
ColourTable = Mapping[int, int]
"""Object ids by colour, 65536 · red + 256 · green + blue."""
_WHITE = 0xFFFFFF
_LINE = re.compile(r"(?P<label>[^:]*):\s*(?P<colour>[0-9]{1,3}\s*,\s*[0-9]{1,3}\s*,\s*[0-9]{1,3})\s*(:.*)?")


def colour_table(root: Folder) -> ColourTable:
    """Returns the ids of colours: those of labelmap.txt in the folder, else those of the VOC palette, 0 to 255.

    Black is 0, the background. If the names of all other labels end with different numbers, such as `dog 2`, these are
    the ids; else the labels count from 1 in the order of the file.

    Raises:
        LayoutError: a line of the file is no label with its colour.
    """
    if not root.has(LABEL_MAP):
        palette = voc_palette()
        return {int.from_bytes(palette[3 * id : 3 * id + 3], "big"): id for id in range(256)}
    labels: dict[int, str] = {}
    for number, line in enumerate(annotation_text(root, LABEL_MAP).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        channels = [int(part) for part in found["colour"].split(",")] if found else []
        if not found or max(channels) > 255:
            raise LayoutError(
                f"{root.path(LABEL_MAP)}, line {number}: {shown(line)} is not `name:red,green,blue::`. Mend the line."
            )
        if any(channels):
            labels[int.from_bytes(bytes(channels), "big")] = found["label"].strip()
    numbers = [re.search(r"(?<![0-9])([0-9]{1,9})$", label) for label in labels.values()]
    ids = [int(one[1]) for one in numbers if one]
    if len(set(ids)) < len(labels) or 0 in ids:
        ids = list(range(1, len(labels) + 1))
    return {0: 0, **dict(zip(labels, ids, strict=True))}


def ids_of_colours(data: bytes, table: ColourTable) -> Int[np.ndarray, "h w"]:
    """Returns the object id of every pixel of a coloured image; transparent pixels are background.

    Raises:
        ValueError: a colour is not in the table, or the data are damaged.
    """
    with opened_image(data) as image:
        pixels = np.asarray(image.convert("RGBA"))
    colours = np.zeros(pixels.shape[:2], dtype=np.int32)
    for channel in range(3):
        colours <<= 8
        colours |= pixels[..., channel]
    colours[pixels[..., 3] == 0] = 0
    ids = np.zeros(colours.shape, dtype=np.int32)
    there = np.unique(colours).tolist()
    if set(there) <= {0, _WHITE} and _WHITE not in table:  # a black and white mask, saved with colours
        table = {0: 0, _WHITE: white_of(data)}
    for colour in there:
        found = colours == colour
        if colour not in table:
            channels = ",".join(map(str, colour.to_bytes(3, "big")))
            raise ValueError(
                f"{found.sum()} pixels have the colour {channels}, which is neither in {LABEL_MAP} nor in the VOC "
                f"palette. Add it there, or write object ids into a palette PNG"
            )
        ids[found] = table[colour]
    return ids
