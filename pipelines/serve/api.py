"""The HTTP API of the service and its page."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from ray import serve
from starlette.exceptions import HTTPException

from pipelines.drawing.overlay import colour_of
from pipelines.serve.answer_response import AnswerResponse
from pipelines.serve.answering import FILES
from pipelines.serve.front import AnswerFormat, Files, Front
from pipelines.serve.guard import Guard
from pipelines.serve.live_api import add_live
from pipelines.serve.page_files import add_page
from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import Limits
from pipelines.serve.thread_stream import stream_from_thread

MODEL = "Model"
"""Name of the deployment of the replicas."""
COLOURS = 16
"""Colours of sentences that the page is told; it begins again after them."""
_FRESH = 2.0  # seconds that the number of replicas is taken to be true
_SWEEP = 5.0  # seconds between two looks for videos whose time is over

_TAGS = [
    {"name": "video", "description": "One video, one answer; nothing is kept."},
    {"name": "kept videos", "description": "A video is decoded and encoded once; each sentence costs only itself."},
    {"name": "service", "description": "Its state, and its numbers."},
]


def api_of(front: Front) -> FastAPI:
    """Returns the application of ASGI that answers all requests."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(front))
        yield
        sweeping.cancel()
        front.close()

    app = FastAPIOffline(title="SgMg", description=__doc__, openapi_tags=_TAGS, lifespan=lifespan, redoc_url=None)
    app.add_middleware(Guard, settings=front.settings)
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_wrong_value)
    _add_video(app, front)
    _add_kept_videos(app, front)
    _add_service(app, front)
    add_page(app)
    if front.settings.live:
        add_live(app, front)
    return app


def _add_video(app: FastAPI, front: Front) -> None:
    @app.post("/segment", tags=["video"], response_class=Response)
    async def segment(
        request: Request,
        video: Annotated[UploadFile | None, File(description="A video file.")] = None,
        images: Annotated[list[UploadFile] | None, File(description="Or its frames, in order.")] = None,
        sentences: Annotated[list[str] | None, Form(description="One sentence; give the field several times.")] = None,
        fps: Annotated[float | None, Form(description="Frames a second that are answered. Default: all.")] = None,
        image_fps: Annotated[float | None, Form(description="Images a second.")] = None,
        format: Annotated[AnswerFormat, Form(description="Lines as they are found, or a finished file.")] = "ndjson",
        min_score: Annotated[float | None, Form(description="Frames with a lower score have no mask.")] = None,
        independent_windows: Annotated[bool, Form(description="Choose the object in each window anew.")] = False,
    ) -> Response:
        """Segments what the sentences describe in a video or in images."""
        await _check_fields(request, "video images sentences fps image_fps format min_score independent_windows")
        files = _files(video, images)
        cut = front.cut(fps, image_fps, independent_windows)
        question = front.question(sentences or (), format, min_score)
        return _answer(front, "/segment", lambda: front.segment(files, cut, question), question.format)


def _add_kept_videos(app: FastAPI, front: Front) -> None:
    @app.post("/videos", tags=["kept videos"], status_code=201, response_class=Response)
    async def keep(
        request: Request,
        video: Annotated[UploadFile | None, File(description="A video file.")] = None,
        images: Annotated[list[UploadFile] | None, File(description="Or its frames, in order.")] = None,
        fps: Annotated[float | None, Form(description="Frames a second that are answered. Default: all.")] = None,
        image_fps: Annotated[float | None, Form(description="Images a second.")] = None,
        independent_windows: Annotated[bool, Form(description="Choose the object in each window anew.")] = False,
    ) -> Response:
        """Decodes and encodes a video, and keeps it for some minutes after its last use."""
        await _check_fields(request, "video images fps image_fps independent_windows")
        files, cut = _files(video, images), front.cut(fps, image_fps, independent_windows)
        return AnswerResponse(
            lambda: _in_turn(front, lambda: front.keep(files, cut)), "/videos", front.counts,
            media_type="application/json", status_code=201,
        )  # fmt: skip

    @app.get("/videos/{id}", tags=["kept videos"])
    async def describe(id: str) -> Response:
        """Tells what there is to know of a kept video."""
        return Response(front.described(front.kept.get(id), known=True), media_type="application/json")

    @app.delete("/videos/{id}", tags=["kept videos"], status_code=204)
    async def remove(id: str) -> Response:
        """Deletes a kept video."""
        front.kept.remove(id)
        return Response(status_code=204)

    @app.post("/videos/{id}/sentences", tags=["kept videos"], response_class=Response)
    async def ask(
        id: str,
        sentences: Annotated[list[str], Body(description="The sentences.")],
        format: Annotated[AnswerFormat, Body(description="Lines as they are found, or a finished file.")] = "ndjson",
        min_score: Annotated[float | None, Body(description="Frames with a lower score have no mask.")] = None,
    ) -> Response:
        """Segments what the sentences describe in a kept video."""
        front.kept.get(id)
        question = front.question(sentences, format, min_score)
        return _answer(front, "/videos/{id}/sentences", lambda: front.ask(id, question), question.format)


def _add_service(app: FastAPI, front: Front) -> None:
    replicas = _Replicas()

    @app.get("/healthz", tags=["service"])
    async def health() -> dict[str, Any]:
        """Tells how the service is, and what it can be asked."""
        return {
            "status": "ok",
            "replicas": await replicas.running(),
            "model": front.spec.fingerprint()[:16],
            "multi_object": front.spec.model.multi_object,
            "sentences_together": front.spec.sentences_together,
            "live": front.settings.live,
            "limits": _shown(front.settings.limits),
            "min_score": front.settings.windows.min_score,
            "keep_minutes": front.settings.keep / 60,
            "colours": ["rgb({} {} {})".format(*colour_of(number)) for number in range(COLOURS)],
        }

    @app.get("/metrics", tags=["service"], response_class=Response)
    async def metrics() -> Response:
        """Tells numbers to Prometheus."""
        counts = front.counts
        counts.running.set(front.turns.running)
        counts.waiting.set(front.turns.waiting)
        counts.videos.set(len(front.kept))
        counts.bytes.set(front.kept.bytes)
        return Response(counts.text(), media_type="text/plain; version=0.0.4")


def _answer(front: Front, route: str, make: Callable[[], Iterator[bytes]], format: AnswerFormat) -> Response:
    if format == "ndjson":
        return AnswerResponse(
            lambda: _in_turn(front, make), route, front.counts, media_type="application/x-ndjson",
            headers={"x-accel-buffering": "no"},
        )  # fmt: skip
    name, media_type = FILES[format]
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return AnswerResponse(lambda: _in_turn(front, make), route, front.counts, media_type=media_type, headers=headers)


async def _in_turn(front: Front, make: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    async with front.turns.turn():
        async for part in stream_from_thread(make, front.threads, front.settings.patience.client):
            yield part


async def _sweep(front: Front) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        front.kept.sweep()


class _Replicas:
    """The number of replicas that run, asked of Ray Serve now and then."""

    def __init__(self) -> None:
        self._count, self._until = 0, 0.0

    async def running(self) -> int:
        """Returns the number of replicas that run."""
        if time.monotonic() > self._until:
            self._count = await asyncio.to_thread(_running_replicas)
            self._until = time.monotonic() + _FRESH
        return self._count


def _running_replicas() -> int:
    name = serve.get_replica_context().app_name
    states = serve.status().applications[name].deployments[MODEL].replica_states
    return sum(count for state, count in states.items() if str(state).endswith("RUNNING"))


def _shown(limits: Limits) -> dict[str, float]:
    return {
        "bytes": limits.bytes,
        "seconds": limits.seconds,
        "pixels": limits.pixels,
        "frames": limits.frames,
        "sentences": limits.sentences,
        "requests_per_minute": limits.requests_per_minute,
    }


def _files(video: UploadFile | None, images: Sequence[UploadFile] | None) -> Files:
    """Returns the files of a request.

    Raises:
        Refusal: there is not exactly one of video and images.
    """
    if (video is None) == (not images):
        raise Refusal(422, "Send either one file as the field video, or files as the field images.")
    files = [video] if video is not None else list(images or ())
    return Files([(one.filename or "", one.file) for one in files], images=video is None)


async def _check_fields(request: Request, known: str) -> None:
    """Checks that a form has no field that nobody reads.

    Raises:
        Refusal: it has one.
    """
    odd = sorted(set((await request.form()).keys()) - set(known.split()))
    if odd:
        raise Refusal(422, f"There is no field {odd[0]!r}. The fields are {', '.join(known.split())}.")


async def _on_refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _on_wrong_value(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "body"
    return JSONResponse({"error": f"The field {where} cannot be used: {problem['msg']}."}, 422)
