"""The way from the front to the replicas: a window is sent again to another one if its replica is lost."""

import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError, RayError

from pipelines.errors import root_cause
from pipelines.serve.refusal import Refusal
from pipelines.serve.window_job import WindowJob, WindowReply

_RETRIES = 3
"""Replicas that may be lost over one window: it may be that window that kills them."""


class ModelClient:
    """Sends windows to the replicas, from any thread but an event loop's.

    Args:
        handle: Ray Serve's handle of the replicas.
        patience: seconds to wait for the answer to one window, over all attempts.
        on_retry: called when a replica was lost.
    """

    def __init__(self, handle: Any, patience: float, on_retry: Callable[[], None]) -> None:
        self._handle, self.patience, self.on_retry = handle, patience, on_retry

    def send(self, job: WindowJob, video: str = "") -> "PendingReply":
        """Sends a window.

        Args:
            job: the window.
            video: id of a kept video: replicas that hold clips of it are preferred.
        """
        handle = self._handle.options(multiplexed_model_id=video) if video else self._handle
        return PendingReply(self, lambda: handle.answer.remote(job))


class PendingReply:
    """The reply to a window that was sent."""

    def __init__(self, client: ModelClient, send: Callable[[], Any]) -> None:
        self._client, self._send = client, send
        self._response = send()

    def get(self) -> WindowReply:
        """Waits for the reply.

        Raises:
            Refusal: every replica that had it was lost, none answered in time, or the model failed.
        """
        until = time.monotonic() + self._client.patience
        for attempt in range(_RETRIES + 1):
            try:
                return self._response.result(timeout_s=max(0.0, until - time.monotonic()))
            except RayActorError as error:
                if attempt == _RETRIES:
                    raise Refusal(
                        503, f"{attempt + 1} replicas of the model were lost over this. Try again."
                    ) from error
                self._client.on_retry()
                self._response = self._send()
            except TimeoutError as error:
                self.cancel()
                raise Refusal(
                    503, f"No replica of the model answered within {self._client.patience:g} s. Try again later."
                ) from error
            except RayError as error:
                raise Refusal(500, f"The model failed: {root_cause(error)}") from error
        raise AssertionError("the last attempt returns or raises")

    def cancel(self) -> None:
        """Tells the replica that nobody waits any more."""
        self._response.cancel()
