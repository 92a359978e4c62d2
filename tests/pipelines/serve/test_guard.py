import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.serve.guard import Guard
from pipelines.serve.settings import Limits, Patience, ServeSettings

HERE = "http://127.0.0.1:8000"


async def read(request: Request) -> Response:
    """Tells how many bytes came."""
    return PlainTextResponse(str(len(await request.body())))


async def refused(_: Request, error: Exception) -> Response:
    """Answers a refusal as the service does."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def asked(settings: ServeSettings, *requests: dict[str, Any]) -> list[httpx.Response]:
    """Answers to requests, one after another."""
    paths = ["/", "/healthz", "/metrics", "/segment", "/assets/page.js", "/docs"]
    routes = [Route(path, read, methods=["GET", "POST"]) for path in paths]
    guarded = Guard(Starlette(routes=routes, exception_handlers={HTTPException: refused}), settings)

    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(guarded, client=("10.0.0.1", 5))  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return [await client.request(**{"method": "GET", **one}) for one in requests]

    return asyncio.run(answers())


def codes(answers: Sequence[httpx.Response]) -> list[int]:
    """Statuses of answers."""
    return [one.status_code for one in answers]


def test_without_a_token_only_this_machine_is_answered() -> None:
    hosts = ("localhost", "127.0.0.1:8000", "[::1]:8000", "example.com", "10.0.0.7", "")
    answers = asked(ServeSettings(), *({"url": "/healthz", "headers": {"host": host}} for host in hosts))
    assert codes(answers) == [200, 200, 200, 403, 403, 403]
    assert answers[3].json()["error"].endswith("not to 'example.com'.")


def test_pages_of_elsewhere_are_refused() -> None:
    origins = (HERE, "http://localhost:8000", "https://example.com", "null")
    answers = asked(ServeSettings(), *({"url": "/", "headers": {"origin": origin}} for origin in origins))
    assert codes(answers) == [200, 403, 403, 403]


def test_a_token_is_wanted_everywhere_but_for_the_page_and_the_health() -> None:
    settings = ServeSettings(token="ünlock")
    paths = ("/", "/healthz", "/assets/page.js", "/metrics", "/docs", "/segment")
    assert codes(asked(settings, *({"url": path} for path in paths))) == [200, 200, 200, 401, 200, 401]
    right = {"url": "/metrics", "headers": {b"authorization": "Bearer ünlock".encode("latin-1")}}
    wrong = {"url": "/metrics", "headers": {"authorization": "Bearer unlock"}}
    query = {"url": "/metrics", "params": {"token": "ünlock"}}
    elsewhere = {"url": "/healthz", "headers": {"host": "example.com"}}
    answers = asked(settings, right, wrong, query, elsewhere)
    assert codes(answers) == [200, 401, 200, 200]
    assert answers[1].headers["www-authenticate"] == "Bearer"


def test_a_body_that_is_too_large_is_refused_by_its_header_or_where_it_ends_to_fit() -> None:
    settings = ServeSettings(limits=Limits(bytes=100_000))

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 50_000

    whole = {"method": "POST", "url": "/segment", "content": b"x" * 500_000}
    parts = {"method": "POST", "url": "/segment", "content": endless()}
    small = {"method": "POST", "url": "/segment", "content": b"x" * 100_000}
    answers = asked(settings, whole, parts, small)
    assert codes(answers) == [413, 413, 200]
    assert answers[1].json()["error"] == "The upload has more than 0 MB, which is the limit. Send a smaller file."


@pytest.mark.parametrize("patience", [Patience(client=0.05), Patience(upload=0.05)])
def test_a_body_that_comes_too_slowly_is_refused(patience: Patience) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x"
            await asyncio.sleep(0.2)

    (answer,) = asked(ServeSettings(patience=patience), {"method": "POST", "url": "/segment", "content": slow()})
    assert answer.status_code == 408
    assert "came too slowly" in answer.json()["error"]


def test_requests_that_cost_something_are_counted() -> None:
    settings = ServeSettings(limits=Limits(requests_per_minute=2))
    posts = [{"method": "POST", "url": "/segment"}] * 3
    answers = asked(settings, *posts, *[{"url": "/healthz"}] * 3)
    assert codes(answers) == [200, 200, 429, 200, 200, 200]
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


def test_browsers_are_told_what_the_page_may_do() -> None:
    page, docs = asked(ServeSettings(), {"url": "/"}, {"url": "/docs"})
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "content-security-policy" not in docs.headers
    assert page.headers["x-content-type-options"] == "nosniff"
