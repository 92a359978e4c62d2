"""The response that an answer is sent as: everything a request holds is held while it is sent, and no longer."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipelines.serve.counts import Counts
from pipelines.serve.refusal import Refusal


class AnswerResponse(Response):
    """A response whose parts are made while it is sent; empty parts are not sent.

    A refusal before the first part is answered with its own status. After that, a response of lines ends with a line
    that has its sentence, and any other ends without its end, which clients take for an error.

    Args:
        parts: makes the parts.
        route: name for the counts.
        counts: of the service.
        media_type: of the answer.
        headers: of the answer.
        status_code: of an answer that is no refusal.
    """

    def __init__(
        self,
        parts: Callable[[], AsyncIterator[bytes]],
        route: str,
        counts: Counts,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
    ) -> None:
        super().__init__(None, status_code, headers, media_type)
        self._parts, self._route, self._counts = parts, route, counts
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (of ASGI)
        """Makes and sends the answer.

        Raises:
            Refusal: there is no answer; nothing was sent yet.
        """
        began, status = time.monotonic(), "left"
        try:
            status = await self._send_all(send)
        except Refusal as refusal:
            status = str(refusal.status_code)
            raise
        except Exception:
            status = "500"
            raise
        finally:
            self._counts.requests.labels(self._route, status).inc()
            self._counts.seconds.labels(self._route).observe(time.monotonic() - began)

    async def _send_all(self, send: Send) -> str:
        begun = False
        parts = self._parts()
        async with aclosing(parts):  # pyright: ignore[reportArgumentType]
            try:
                async for part in parts:
                    if part:
                        if not begun:
                            await self._begin(send)
                            begun = True
                        await send({"type": "http.response.body", "body": part, "more_body": True})
            except Refusal as refusal:
                if not begun or self.media_type != "application/x-ndjson":
                    raise
                line = json.dumps({"error": refusal.sentence, "done": False}).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": False})
                return str(refusal.status_code)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return str(self.status_code)

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
