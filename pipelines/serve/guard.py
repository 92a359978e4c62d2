"""Checks of every request before anything is read of it: host, token, rate; and the limits of its body."""

import asyncio
import hmac
import json
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import ServeSettings, is_loopback
from pipelines.serve.turns import Rate

OPEN_PATHS = ("/", "/healthz", "/docs", "/openapi.json")
OPEN_FOLDERS = ("/assets/", "/static-offline-docs/")
"""Paths that need no token: the pages themselves and the health. Nothing can be asked by them."""
_FRAMING = 64 * 1024
"""Bytes of a body beside the files: the fields of a form, and what separates them."""
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_DOCS = "/docs"
"""The page of the API, whose script stands in the page itself."""


class Guard:
    """ASGI middleware that refuses requests before their body is read, and bodies that are too large or too slow.

    Args:
        app: what requests go on to.
        settings: of the service.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings
        self._rate = Rate(settings.limits.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await _refuse(scope, receive, send, refusal)
            return
        body = _Body(receive, self._settings) if scope["type"] == "http" else None
        await self._app(scope, body or receive, _with_headers(scope, send))

    def _check(self, scope: Scope) -> None:
        headers, settings = Headers(scope=scope), self._settings
        if not settings.token:
            _check_local(headers)
        _check_origin(headers)
        path = _path(scope)
        if settings.token and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDERS):
            _check_token(scope, headers, settings.token)
        if scope["type"] == "websocket" or scope["method"] in ("POST", "PUT"):
            self._rate.count((scope.get("client") or ("unknown", 0))[0])
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.limits.bytes + _FRAMING:
            raise too_large(settings.limits.bytes)


def too_large(most: int) -> Refusal:
    """Returns the refusal of an upload that has more bytes than that."""
    return Refusal(413, f"The upload has more than {most / 1e6:.0f} MB, which is the limit. Send a smaller file.")


class _Body:
    """The body of a request, as it arrives: counted and timed."""

    def __init__(self, receive: Receive, settings: ServeSettings) -> None:
        self._receive, self._patience = receive, settings.patience
        self._most = settings.limits.bytes
        self._count = 0
        self._until = time.monotonic() + settings.patience.upload
        self._whole = False

    async def __call__(self) -> Message:
        """Returns the next part of the body.

        Raises:
            Refusal: the body is too large, or comes too slowly.
        """
        if self._whole:
            return await self._receive()  # waits for the client to leave
        left = min(self._patience.client, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError:
            raise Refusal(
                408,
                f"The upload came too slowly: nothing for {self._patience.client:g} s, or not all of it within "
                f"{self._patience.upload:g} s.",
            ) from None
        self._count += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._count > self._most + _FRAMING:
            raise too_large(self._most)
        return message


def _check_local(headers: Headers) -> None:
    """Checks that a request to a service without a token is meant for this machine.

    A page of elsewhere whose name was made to lead to this machine would send its own name.
    """
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if not is_loopback(host):
        raise Refusal(
            403, f"This service has no token, so it answers to 127.0.0.1 and localhost only, not to {host!r}."
        )


def _check_origin(headers: Headers) -> None:
    """Checks that a request that a page sends is sent by ours."""
    origin = headers.get("origin")
    if origin and urlsplit(origin).netloc != headers.get("host"):
        raise Refusal(403, f"Pages of {origin} may not use this service.")


def _check_token(scope: Scope, headers: Headers, token: str) -> None:
    given = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not given:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise Refusal(
            401,
            "The token is missing or wrong. Send the header Authorization: Bearer TOKEN, with the service's token.",
            {"WWW-Authenticate": "Bearer"},
        )


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    body = json.dumps({"error": refusal.sentence}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(refusal.headers or {})}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + refusal.status_code, "reason": refusal.sentence[:120]})
        return
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _with_headers(scope: Scope, send: Send) -> Send:
    """Returns a `send` that adds what a browser has to know."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers.setdefault("x-content-type-options", "nosniff")
            headers.setdefault("referrer-policy", "no-referrer")
            headers.setdefault("cache-control", "no-store")
            if not _path(scope).startswith(_DOCS):
                headers.setdefault("content-security-policy", _POLICY)
        await send(message)

    return sending
