"""What stands in for Ray Serve's handle of the replicas: the real worker of a replica, in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from pipelines.inference.predictor import Predictor
from pipelines.serve.clip_cache import ClipCache
from pipelines.serve.live_streams import LiveStreams
from pipelines.serve.model_worker import ModelWorker


class _Response:
    """The response to a call, as Ray Serve's."""

    def __init__(self, future: "Future[Any]") -> None:
        self._future = future

    def result(self, timeout_s: float) -> Any:
        """Waits for the result."""
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Cancels the call."""
        self._future.cancel()


class _Method:
    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class LocalHandle:
    """A handle of one replica.

    Args:
        predictor: of the replica.
        losses: errors that the first calls raise, as if their replicas had died.
    """

    def __init__(self, predictor: Predictor, losses: list[BaseException] | None = None) -> None:
        self.worker = ModelWorker(predictor, ClipCache(2**24))
        self._live = LiveStreams(predictor, predictor.protocol.short_side)
        self._losses = losses or []
        self.answer, self.live = _Method(self._send), _Method(self._push)

    def options(self, **_: Any) -> "LocalHandle":
        """Returns a handle with options."""
        return self

    def _send(self, job: Any) -> _Response:
        if self._losses:
            lost: Future[Any] = Future()
            lost.set_exception(self._losses.pop(0))
            return _Response(lost)
        return _Response(self.worker.answer(job))

    def _push(self, stream: str, frame: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self.worker.call(stream, lambda: self._live.answer(stream, frame)))
