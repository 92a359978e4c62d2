"""Times of the images of a folder: from a rate that is given or stands in the folder's name, or from EXIF."""

import io
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import IO, cast

import numpy as np
from jaxtyping import Float

from pipelines.files import at_once
from pipelines.images import opened_image

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_RATE = re.compile(rf"(?<![0-9.]){_NUMBER}[ _-]?fps(?![a-z])|(?<![a-z])fps[ _=-]?{_NUMBER}", re.IGNORECASE)
_TOGETHER, _HEAD = 256, 2**16
"""Images that are looked at before it is known whether they tell, and bytes of one that are read at once."""
_DETAILS, _TAKEN, _PART = 0x8769, 0x9003, 0x9291
"""EXIF tags: the folder of details, and in it the second in which a picture was taken, and the part of that second."""


def rate_of_name(name: str) -> float | None:
    """Returns the frames per second that the name of a folder tells; None if it tells none.

    >>> rate_of_name("cat_5fps"), rate_of_name("FPS=2.5 dog"), rate_of_name("fps_test")
    (5.0, 2.5, None)
    """
    found = _RATE.search(name)
    rate = float(found[1] or found[2]) if found else 0.0
    return rate or None


def exif_times(names: Sequence[str], opened: Callable[[str], IO[bytes]]) -> Float[np.ndarray, " n"] | None:
    """Returns the seconds from the first image to each, as their EXIF tells; None unless each is later than the last.

    Args:
        names: of the images, in order.
        opened: opens an image; only its header is read.
    """
    taken: list[datetime] = []
    for first in range(0, len(names), _TOGETHER):
        for time in at_once(partial(_taken, opened), names[first : first + _TOGETHER]):
            if time is None or (taken and time <= taken[-1]):
                return None
            taken.append(time)
    return np.array([(time - taken[0]).total_seconds() for time in taken]) if len(taken) > 1 else None


def _taken(opened: Callable[[str], IO[bytes]], name: str) -> datetime | None:
    """Returns when an image was taken; None if it does not tell."""
    try:
        # Pillow reads a few bytes at a time, each of which may be a request.
        with opened(name) as file, opened_image(io.BufferedReader(cast(io.RawIOBase, file), _HEAD)) as image:
            details = image.getexif().get_ifd(_DETAILS)
        part = str(details.get(_PART, "0")).strip(" \0") or "0"
        whole = str(details.get(_TAKEN, "")).strip(" \0")
        return datetime.strptime(f"{whole}.{part[:6]}", "%Y:%m:%d %H:%M:%S.%f")
    except (OSError, ValueError):
        return None
