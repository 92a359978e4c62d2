"""Decoder processes that requests borrow: starting one takes half a second."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.video.decoder import VideoDecoder

_IDLE = 4
"""Idle processes that are kept, at most."""


class Decoders:
    """Lends decoders, one to each borrower. For several threads.

    Args:
        time_limit: seconds without a sign of life of a decoder process, after which a video is given up.
    """

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._idle: list[VideoDecoder] = []
        self._guard = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[VideoDecoder]:
        """Lends a decoder. If the block raises, its process is ended, whatever it is doing."""
        with self._guard:
            one = self._idle.pop() if self._idle else VideoDecoder(self._time_limit)
        try:
            yield one
        except BaseException:
            one.close()
            raise
        with self._guard:
            kept = len(self._idle) < _IDLE
            if kept:
                self._idle.append(one)
        if not kept:
            one.close()

    def close(self) -> None:
        """Ends the idle processes."""
        with self._guard:
            while self._idle:
                self._idle.pop().close()
