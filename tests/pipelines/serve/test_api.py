"""The API in this process: the real front and the real worker of a replica, without Ray between them."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from ray.exceptions import ActorDiedError

from annotate_data import moving, write_video
from local_handle import LocalHandle
from pipelines.annotate.settings import Settings
from pipelines.inference.predictor import Predictor
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.serve.api import api_of
from pipelines.serve.front import Front
from pipelines.serve.settings import Patience, ServeSettings

SENTENCES = ["the ball", "a man"]
SETTINGS = ServeSettings(
    windows=Settings(window=8, overlap=2, min_score=0.0), live=True, keep_bytes=400_000, patience=Patience(replica=60)
)
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """Videos of 56x40, by their number of frames."""
    folder = tmp_path_factory.mktemp("videos")
    return {t: write_video(folder / f"{t}.mp4", moving(t, t), codec="libx264").read_bytes() for t in (6, 20, 100)}


def front_of(predictor: Predictor, handle: LocalHandle) -> Front:
    """A front whose replicas are in this process."""
    spec = PredictorSpec(
        checkpoint=Path, checkpoint_sha256="", tokenizer=predictor.tokenizer.to_json(), protocol=predictor.protocol,
        precision="float32", model=predictor.model.config, threads=1, gpu=False,
    )  # fmt: skip
    return Front(spec, SETTINGS, handle)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    """A client of the API."""
    handle = LocalHandle(predictor)
    with TestClient(api_of(front_of(predictor, handle)), base_url="http://127.0.0.1") as one:
        yield one
    handle.worker.close()


def lines_of(answer: Any) -> list[dict[str, Any]]:
    """The lines of an answer."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_video_is_answered_line_by_line_and_kept_alike(client: TestClient, videos: dict[int, bytes]) -> None:
    once = client.post("/segment", files={"video": ("a.mp4", videos[20])}, data={"sentences": SENTENCES})
    lines = lines_of(once)
    assert lines[0]["video"] == {"width": 56, "height": 40, "frames": 20, "fps": 10.0, "seconds": 2.0, "windows": 3}
    assert [(one["frame"], one["sentence"]) for one in lines[1:-1]] == [(t, e) for t in range(20) for e in range(2)]
    assert [one["sentence"] for one in lines[-1]["tracks"]] == [0, 1]
    kept = client.post("/videos", files={"video": ("a.mp4", videos[20])}).json()
    again = client.post("/videos", files={"video": ("b.mp4", videos[20])}).json()
    assert (kept["known"], again["known"], kept["id"]) == (False, True, again["id"])
    assert client.get(f"/videos/{kept['id']}").json()["times"] == [t / 10 for t in range(20)]
    assert client.post(f"/videos/{kept['id']}/sentences", json={"sentences": SENTENCES}).text == once.text
    assert client.delete(f"/videos/{kept['id']}").status_code == 204
    assert client.get(f"/videos/{kept['id']}").status_code == 404


@pytest.mark.parametrize(("format", "name"), [("coco", "coco.json"), ("youtube-vis", "youtube_vis.json")])
def test_json_is_written(client: TestClient, videos: dict[int, bytes], format: str, name: str) -> None:
    data = {"sentences": SENTENCES, "format": format}
    answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data=data)
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert [one["name"] for one in answer.json()["categories"]] == SENTENCES


@pytest.mark.parametrize(("format", "entries"), [("png", 12), ("davis", 7)])
def test_zips_are_written(client: TestClient, videos: dict[int, bytes], format: str, entries: int) -> None:
    data = {"sentences": SENTENCES, "format": format}
    answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data=data)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == entries


def test_an_overlay_is_written(client: TestClient, videos: dict[int, bytes]) -> None:
    data = {"sentences": SENTENCES, "format": "overlay"}
    answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data=data)
    assert answer.content[4:8] == b"ftyp"


def test_a_video_for_which_there_is_no_room_is_refused(client: TestClient, videos: dict[int, bytes]) -> None:
    refused = client.post("/videos", files={"video": ("a.mp4", videos[100])})
    assert refused.status_code == 413
    assert "more than the service has left to keep videos (0 MB)" in refused.json()["error"]


@pytest.mark.parametrize(
    ("files", "data", "status", "said"),
    [
        ({}, {"sentences": "a"}, 422, "Send either one file"),
        ({"video": b"x"}, {}, 422, "No sentence is asked"),
        ({"video": b"x"}, {"sentences": ["a"] * 65}, 413, "65 sentences are asked, the limit is 64"),
        ({"video": b"x"}, {"sentences": "a", "colour": "red"}, 422, "There is no field 'colour'"),
        ({"video": b"x"}, {"sentences": "a", "min_score": "-1"}, 422, "min_score is -1.0"),
        ({"video": b"x"}, {"sentences": "a", "fps": "0"}, 422, "fps must be above 0"),
        ({"video": b"x"}, {"sentences": " "}, 422, "Sentence 1 cannot be asked"),
        ({"video": b"no video"}, {"sentences": "a"}, 422, "The video cannot be used"),
        ({"images": b"no image"}, {"sentences": "a"}, 422, "is no image"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    client: TestClient, files: dict[str, bytes], data: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("/segment", files=files or None, data=data)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_the_page_and_the_numbers_are_there(client: TestClient) -> None:
    assert "Ask a video" in client.get("/").text
    for name in ("page.js", "stage.js", "masks.js", "parts.js", "report.css"):
        assert client.get(f"/assets/{name}").status_code == 200
    assert client.get("/assets/nothing.js").json()["error"] == "The page has no file 'nothing.js'."
    assert b"sgmg_requests_total" in client.get("/metrics").content


@pytest.mark.parametrize(("times", "status"), [(3, 200), (4, 503)])
def test_a_window_whose_replica_is_lost_is_sent_to_another(
    predictor: Predictor, videos: dict[int, bytes], times: int, status: int
) -> None:
    handle = LocalHandle(predictor, [ActorDiedError() for _ in range(times)])
    with TestClient(api_of(front_of(predictor, handle)), base_url="http://127.0.0.1") as client:
        data = {"sentences": SENTENCES[0], "format": "coco"}
        answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data=data)
        lost = f"sgmg_lost_replicas_total {min(times, 3)}.0".encode()
        assert lost in client.get("/metrics").content
    handle.worker.close()
    assert answer.status_code == status
    if status == 503:
        assert answer.json()["error"] == "4 replicas of the model were lost over this. Try again."


def test_an_answer_that_breaks_off_ends_with_its_error(predictor: Predictor, videos: dict[int, bytes]) -> None:
    handle = LocalHandle(predictor, [ActorDiedError() for _ in range(4)])
    with TestClient(api_of(front_of(predictor, handle)), base_url="http://127.0.0.1") as client:
        answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data={"sentences": SENTENCES[0]})
    handle.worker.close()
    assert lines_of(answer)[-1] == {"error": "4 replicas of the model were lost over this. Try again.", "done": False}


def test_a_replica_that_does_not_answer_is_given_up(predictor: Predictor, videos: dict[int, bytes]) -> None:
    handle = LocalHandle(predictor)
    front = front_of(predictor, handle)
    front.client.patience = 0.0
    with TestClient(api_of(front), base_url="http://127.0.0.1") as client:
        data = {"sentences": SENTENCES[0], "format": "coco"}
        answer = client.post("/segment", files={"video": ("a.mp4", videos[6])}, data=data)
    handle.worker.close()
    assert answer.status_code == 503
    assert "No replica of the model answered within 0 s" in answer.json()["error"]


def test_a_stream_is_answered_frame_by_frame(client: TestClient) -> None:
    written, frame = cv2.imencode(".png", next(moving(1, 1)))
    assert written
    with client.websocket_connect("ws://127.0.0.1/live") as socket:
        socket.send_bytes(frame.tobytes())
        assert "No sentence is asked yet" in socket.receive_json()["error"]
        for text in ("[]", '{"sentences": ["a"], "context": 0}', json.dumps({"sentences": ["a"] * 65})):
            socket.send_text(text)
            assert "error" in socket.receive_json()
        socket.send_json({"sentences": SENTENCES})
        assert socket.receive_json() == {"sentences": SENTENCES}
        for number in range(2):
            socket.send_bytes(frame.tobytes())
            answer = socket.receive_json()
            assert answer["frame"] == number
            assert [one["sentence"] for one in answer["answers"]] == SENTENCES
        socket.send_json({"sentences": SENTENCES[:1]})
        socket.receive_json()
        socket.send_bytes(frame.tobytes())
        (only,) = socket.receive_json()["answers"]
        assert np.isfinite(only["score"])


def test_settings_of_a_request_do_not_change_those_of_the_service(predictor: Predictor) -> None:
    handle = LocalHandle(predictor)
    front = front_of(predictor, handle)
    assert front.cut(None, None, False) == SETTINGS.windows
    assert front.cut(5, 10, True) == replace(SETTINGS.windows, fps=5, image_fps=10, independent=True, overlap=0)
    front.close()
    handle.worker.close()
