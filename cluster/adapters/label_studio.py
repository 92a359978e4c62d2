"""A Label Studio ML backend: it answers tasks with what a service of jobs/serve.py finds.

    pip install fastapi uvicorn httpx pydantic defusedxml numpy pycocotools
    export LABEL_STUDIO_URL=http://127.0.0.1:8080 LABEL_STUDIO_API_KEY=...  # a legacy token: Account & Settings
    export SGMG_URL=http://127.0.0.1:8000 SGMG_TOKEN=...                    # the token, if the service has one
    python cluster/adapters/label_studio.py --port 9090

In Label Studio: Settings, Model, Connect Model, http://127.0.0.1:9090. What is looked for is `sentence`, `sentences` or
`text` of a task's data, or else every label of the labelling configuration. An image gets masks (BrushLabels) and boxes
(RectangleLabels), a video gets boxes (VideoRectangle): Label Studio has no masks for videos.

This file needs label_studio_regions.py beside it, and nothing else of this repository.
"""

import argparse
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

import httpx
import numpy as np
import uvicorn
from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from label_studio_regions import (
    AdapterError,
    Answers,
    Json,
    Medium,
    frame_rate_of,
    image_regions,
    read_configuration,
    sentences_of,
    video_regions,
)

TRAINING_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")
_IN_MEMORY = 16 * 2**20  # bytes of a file that are kept in memory
_TIMEOUT = httpx.Timeout(300, connect=10)  # seconds, for the next line of an answer
_DOWNLOAD = 300.0  # seconds for a whole file
_PROXY = "let Label Studio proxy its storage (pre-signed URLs off)"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses and limits.

    Attributes:
        service, token: of jobs/serve.py.
        label_studio, key: of Label Studio.
        max_bytes: of an image or a video.
    """

    service: str
    token: str
    label_studio: str
    key: str
    max_bytes: int


def file_url(address: object, label_studio: str) -> httpx.URL:
    """Returns the address of a task's file, which must be one of Label Studio's own.

    Raises:
        AdapterError: it is another one: this machine may reach what whoever made the task may not.
    """
    if not isinstance(address, str) or not address:
        raise AdapterError(f"The task has no address of an image or a video (got {address!r}).")
    base = httpx.URL(label_studio)
    local = address.startswith("/") and not address.startswith("//")
    try:
        url = httpx.URL(label_studio.rstrip("/") + address if local else address)
    except httpx.InvalidURL as error:
        raise AdapterError(f"{address!r} is no address: {error}.") from error
    if url.scheme not in ("http", "https") or (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
        raise AdapterError(
            f"{address!r} is no file of {label_studio}, and only those are fetched. Upload it there, or {_PROXY}."
        )
    return url


@contextlib.contextmanager
def fetched(url: httpx.URL, settings: Settings) -> Iterator[IO[bytes]]:
    """Yields a file of Label Studio; it is gone afterwards.

    Raises:
        AdapterError: Label Studio does not give it, or it is too large or too slow.
    """
    until = time.monotonic() + _DOWNLOAD
    headers = {"Authorization": f"Token {settings.key}"} if settings.key else {}
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        try:
            with httpx.stream("GET", url, headers=headers, timeout=30, follow_redirects=False) as answer:
                if answer.status_code != 200:
                    raise AdapterError(
                        f"{url} answered {answer.status_code}. Check LABEL_STUDIO_API_KEY. Redirects are not followed: "
                        f"{_PROXY}."
                    )
                for part in answer.iter_bytes():
                    file.write(part)
                    if file.tell() > settings.max_bytes:
                        raise AdapterError(f"{url} has more than {settings.max_bytes / 1e6:g} MB. See --max-mb.")
                    if time.monotonic() > until:
                        raise AdapterError(f"{url} took more than {_DOWNLOAD:g} s. Put a smaller file there.")
        except httpx.HTTPError as error:
            raise AdapterError(f"{url} cannot be fetched: {error!r}. Check LABEL_STUDIO_URL.") from error
        file.seek(0)
        yield file


def segment(file: IO[bytes], medium: Medium, sentences: list[str], settings: Settings) -> Answers:
    """Returns what the service finds in an image or a video.

    Raises:
        AdapterError: the service is away or refuses.
    """
    field = "images" if medium.kind == "Image" else "video"
    url, files = f"{settings.service.rstrip('/')}/segment", {field: (field, file)}
    data, headers = {"sentences": sentences}, _authorization(settings)
    try:
        with httpx.stream("POST", url, files=files, data=data, headers=headers, timeout=_TIMEOUT) as answer:
            if answer.status_code != 200:
                answer.read()
                raise AdapterError(f"{settings.service} answered {answer.status_code}: {answer.text}")
            first, *frames, last = [json.loads(line) for line in answer.iter_lines() if line]
    except (httpx.HTTPError, ValueError) as error:
        raise AdapterError(f"{settings.service} gave no whole answer: {error!r}. Check SGMG_URL.") from error
    if not last.get("done"):
        raise AdapterError(f"{settings.service} stopped in the middle: {last.get('error', 'no reason given')}")
    return Answers(first["video"], frames)


def predict(task: Mapping[str, Any], medium: Medium, settings: Settings, version: str) -> Json:
    """Returns the prediction of a task.

    Raises:
        AdapterError: there is none.
    """
    data = task.get("data") or {}
    sentences = sentences_of(data, medium)
    with fetched(file_url(data.get(medium.key), settings.label_studio), settings) as file:
        answers = segment(file, medium, sentences, settings)
    if medium.kind == "Image":
        regions = image_regions(medium, sentences, answers)
    else:
        regions = video_regions(medium, sentences, answers, frame_rate_of(medium, data))
    return _prediction(regions, version)


def _prediction(regions: list[Json], version: str) -> Json:
    score = float(np.mean([one["score"] for one in regions])) if regions else 0.0
    return {"model_version": version, "score": score, "result": regions}


def _model_version(settings: Settings) -> str:
    try:
        answer = httpx.get(f"{settings.service.rstrip('/')}/healthz", headers=_authorization(settings), timeout=2.5)
        return f"sgmg-{answer.raise_for_status().json()['model']}"
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise AdapterError(f"{settings.service} is no service of jobs/serve.py: {error!r}. Check SGMG_URL.") from error


def _authorization(settings: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {settings.token}"} if settings.token else {}


class PredictRequest(BaseModel):
    """What Label Studio sends to /predict, as far as it is read."""

    tasks: list[dict[str, Any]]
    label_config: str


def app_of(settings: Settings) -> FastAPI:
    """Returns the application, with the routes of label-studio-ml."""
    app = FastAPI(title="SgMg for Label Studio", docs_url=None, redoc_url=None)

    @app.exception_handler(AdapterError)
    async def refuse(_: object, error: AdapterError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503)

    @app.get("/")
    @app.get("/health")
    def health() -> Json:
        return {"status": "UP", "model_class": "SgMg"}

    @app.post("/setup")
    def setup() -> Json:
        return {"model_version": _model_version(settings)}

    @app.post("/predict", name="predict")
    def answer(request: PredictRequest) -> Json:
        version, medium = _model_version(settings), read_configuration(request.label_config)
        return {"results": _predictions(request.tasks, medium, settings, version), "model_version": version}

    @app.post("/webhook")
    def learn(event: Annotated[Json, Body()]) -> JSONResponse:
        """Accepts what Label Studio tells of annotations. Nothing is learned from them."""
        if event.get("action") not in TRAINING_EVENTS:
            return JSONResponse({"status": "Unknown event"})
        return JSONResponse({"status": "ok", "result": {}}, 201)

    return app


def _predictions(tasks: Sequence[Json], medium: Medium, settings: Settings, version: str) -> list[Json]:
    """Returns a prediction for each task, an empty one for a task that cannot be answered.

    Raises:
        AdapterError: none of the tasks can be answered.
    """
    predictions, failures = [], []
    for task in tasks:
        try:
            predictions.append(predict(task, medium, settings, version))
        except AdapterError as error:
            _logger.warning("Task %s has no prediction. %s", task.get("id"), error)
            predictions.append(_prediction([], version))
            failures.append(error)
    if failures and len(failures) == len(tasks):
        raise failures[0]
    return predictions


def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; it asks nobody for a password")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--max-mb", type=float, default=512.0, help="largest image or video, in megabytes")
    flags = parser.parse_args()
    settings = Settings(
        service=os.environ.get("SGMG_URL", "http://127.0.0.1:8000"),
        token=os.environ.get("SGMG_TOKEN", ""),
        label_studio=os.environ.get("LABEL_STUDIO_URL", "http://127.0.0.1:8080"),
        key=os.environ.get("LABEL_STUDIO_API_KEY", ""),
        max_bytes=int(flags.max_mb * 1e6),
    )
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app_of(settings), host=flags.host, port=flags.port)


if __name__ == "__main__":
    main()
