"""The decoder of a worker: its process is kept from one task to the next, for starting it takes half a second."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.video.decoder import VideoDecoder

_kept: dict[float, VideoDecoder] = {}


@contextmanager
def decoder(time_limit: float) -> Iterator[VideoDecoder]:
    """The worker's own decoder. One that was left in the middle of something is not used again."""
    one = _kept.pop(time_limit, None) or VideoDecoder(time_limit)
    try:
        yield one
    except BaseException:
        one.close()
        raise
    _kept[time_limit] = one
