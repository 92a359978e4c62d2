"""Messages of windows: from the front of the service to a replica, and back. No torch here."""

from dataclasses import dataclass

from pipelines.inference.answers import Answer
from pipelines.inference.model_frames import ModelFrames


@dataclass(frozen=True, slots=True, eq=False)
class WindowJob:
    """One window of a request.

    Attributes:
        request: id of the request; requests take turns.
        frames: of the window, and the sentences that are asked of it; without sentences it is encoded and kept.
        clip: key under which the replica keeps the encoded clip; empty keeps none.
    """

    request: str
    frames: ModelFrames
    clip: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class WindowReply:
    """The answers to a window, one for each sentence.

    Attributes:
        answers: in the order of the sentences.
        problem: why there are none, as one sentence; empty if there is no problem.
    """

    answers: tuple[Answer, ...] = ()
    problem: str = ""
