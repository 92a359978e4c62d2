"""A Label Studio ML backend: it answers tasks with what a service of jobs/serve.py finds.

    pip install fastapi uvicorn httpx pydantic defusedxml numpy pycocotools
    export LABEL_STUDIO_URL=http://127.0.0.1:8080 LABEL_STUDIO_API_KEY=...  # a legacy token: Account & Settings
    export SGMG_URL=http://127.0.0.1:8000 SGMG_TOKEN=...                    # the token, if the service has one
    python cluster/adapters/label_studio.py --port 9090

In Label Studio: Settings, Model, Connect Model, http://127.0.0.1:9090. What is looked for is `sentence`, `sentences` or
`text` of a task's data, or else every label of the labelling configuration. An image gets masks (BrushLabels) and boxes
(RectangleLabels), a video gets boxes (VideoRectangle): Label Studio has no masks for videos.

A file in a bucket that Label Studio does not proxy comes from the bucket's own host: --allow-host names it.

This file needs label_studio_files.py and label_studio_regions.py beside it, and nothing else of this repository.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Annotated, Any

import httpx
import numpy as np
import uvicorn
from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from label_studio_files import Files
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
_TIMEOUT = httpx.Timeout(300, connect=10)  # seconds, for the next line of an answer
_PATIENCE = 60.0  # seconds to wait for a service that is busy
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What this backend works with.

    Attributes:
        service, token: of jobs/serve.py.
        files: how those of tasks are fetched.
    """

    service: str
    token: str
    files: Files


def segment(file: IO[bytes], medium: Medium, sentences: list[str], settings: Settings) -> Answers:
    """Returns what the service finds in an image or a video. Waits for a service that is busy.

    Raises:
        AdapterError: the service is away or refuses.
    """
    try:
        answer = _sent(file, "images" if medium.kind == "Image" else "video", sentences, settings)
        if answer.status_code != 200:
            raise AdapterError(f"{settings.service} answered {answer.status_code}: {answer.text}")
        first, *frames, last = [json.loads(line) for line in answer.content.split(b"\n") if line]
    except (httpx.HTTPError, ValueError) as error:
        raise AdapterError(f"{settings.service} gave no whole answer: {error!r}. Check SGMG_URL.") from error
    if not last.get("done"):
        raise AdapterError(f"{settings.service} stopped in the middle: {last.get('error', 'no reason given')}")
    return Answers(first["video"], frames)


def _sent(file: IO[bytes], field: str, sentences: list[str], settings: Settings) -> httpx.Response:
    """Returns the service's answer to a request, which is sent again after a 429, as its Retry-After says."""
    url, headers = f"{settings.service.rstrip('/')}/segment", _authorization(settings)
    until = time.monotonic() + _PATIENCE
    while True:
        files, data = {field: (field, file)}, {"sentences": sentences}
        answer = httpx.post(url, files=files, data=data, headers=headers, timeout=_TIMEOUT)
        pause = float(answer.headers.get("Retry-After", 1))
        if answer.status_code != 429 or time.monotonic() + pause > until:
            return answer
        time.sleep(pause)


def predict(task: Mapping[str, Any], medium: Medium, settings: Settings, version: str) -> Json:
    """Returns the prediction of a task.

    Raises:
        AdapterError: there is none.
    """
    data = task.get("data") or {}
    sentences = sentences_of(data, medium)
    with settings.files.fetched(settings.files.url_of(data.get(medium.key), task.get("id"))) as file:
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
        _logger.warning("%s", error)  # Label Studio shows the status alone
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


def _predictions(tasks: list[Json], medium: Medium, settings: Settings, version: str) -> list[Json]:
    """Returns the prediction of the first task that has one.

    One answer to several tasks tells Label Studio to ask for each alone. It waits 100 s for an answer, too short for
    many videos, and would keep an empty prediction of a task that failed among others.

    Raises:
        AdapterError: no task has a prediction.
    """
    failures = []
    for task in tasks:
        try:
            return [predict(task, medium, settings, version)]
        except AdapterError as error:
            failures.append(AdapterError(f"Task {task.get('id')} has no prediction. {error}"))
    if failures:
        raise failures[0]
    return []


def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; it asks nobody for a password")
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--max-mb", type=float, default=512.0, help="largest image or video, in megabytes")
    parser.add_argument("--allow-host", action="append", default=[], help="further host that files may come from")
    flags = parser.parse_args()
    settings = Settings(
        service=os.environ.get("SGMG_URL", "http://127.0.0.1:8000"),
        token=os.environ.get("SGMG_TOKEN", ""),
        files=Files(
            label_studio=os.environ.get("LABEL_STUDIO_URL", "http://127.0.0.1:8080"),
            key=os.environ.get("LABEL_STUDIO_API_KEY", ""),
            hosts=tuple(flags.allow_host),
            max_bytes=int(flags.max_mb * 1e6),
        ),
    )
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(app_of(settings), host=flags.host, port=flags.port)


if __name__ == "__main__":
    main()
