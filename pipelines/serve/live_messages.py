"""Messages of live streams: from the front of the service to a replica, and back. No torch here."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True, slots=True)
class LiveQuestion:
    """Question that a stream is asked from now on.

    Attributes:
        sentences: those that were asked before keep their objects.
        context: frames that an answer is made from.
        stride: distance between these frames.
    """

    sentences: tuple[str, ...]
    context: int = 8
    stride: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """A frame of a stream.

    Attributes:
        question: of the stream; a replica that does not know the stream begins it with this.
        frame: RGB.
    """

    question: LiveQuestion
    frame: UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class LiveReply:
    """The answers to a frame, as the API sends them, or why there are none."""

    answers: tuple[dict[str, Any], ...] = ()
    problem: str = ""
