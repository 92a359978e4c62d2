"""The decoder of a worker, kept from one task to the next because starting its process takes half a second."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.video.decoder import VideoDecoder

_kept: dict[float, VideoDecoder] = {}


@contextmanager
def decoder(time_limit: float) -> Iterator[VideoDecoder]:
    """Lends the worker's own decoder. If the block raises, the decoder is closed and not used again."""
    one = _kept.pop(time_limit, None) or VideoDecoder(time_limit)
    try:
        yield one
    except BaseException:
        one.close()
        raise
    _kept[time_limit] = one
