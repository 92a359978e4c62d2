"""Settings of the service: what a request may ask of it, how many replicas run the model, and what they keep."""

import ipaddress
from dataclasses import dataclass, field, fields

from pipelines.annotate.settings import Settings

MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request, or one client, may ask for.

    Attributes:
        bytes: of an upload.
        seconds: length of a video.
        pixels: of a frame.
        frames: that are answered of a video, and images of an upload.
        sentences: of a request.
        requests_per_minute: of one client address.
        running: requests that are answered at the same time.
        waiting: further requests that wait for one of these to end; more are refused.
    """

    bytes: int = 512 * 2**20
    seconds: float = 600.0
    pixels: int = 4096 * 2304
    frames: int = 20_000
    sentences: int = 64
    requests_per_minute: int = 120
    running: int = 16
    waiting: int = 64

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: one is not above 0.
        """
        for one in fields(self):
            if not (value := getattr(self, one.name)) > 0:
                raise ValueError(f"The limit of {one.name} must be above 0 (got {value}).")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds after which the service gives up waiting.

    Attributes:
        client: for the next bytes of an upload, or for a client to read the next part of an answer.
        upload: for a whole upload.
        decoder: for a sign of life of the process that decodes a video.
        turn: for a request that waits for its turn.
        replica: for the answer to one window.
    """

    client: float = 30.0
    upload: float = 900.0
    decoder: float = 60.0
    turn: float = 60.0
    replica: float = 300.0


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything that the front of the service is told.

    Attributes:
        limits: of requests.
        patience: of the service.
        keep: seconds for which an unused video is kept.
        keep_bytes: of the disk that kept videos may take.
        windows: frames, overlap and the least score of answers; a request may choose another rate and score.
        token: that clients have to send; empty asks for none.
        live: whether frames of a camera are answered one by one.
        at_once: windows of one request that replicas may work on at the same time.
    """

    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    keep: float = 30 * MINUTE
    keep_bytes: int = 8 * 10**9
    windows: Settings = field(default_factory=Settings)
    token: str = field(default="", repr=False)
    live: bool = False
    at_once: int = 2


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a server on that host.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
