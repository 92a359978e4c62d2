"""The service as its clients see it: jobs/serve.py in a process of its own, asked over HTTP."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from annotate_data import moving, write_video
from pack import ROOT
from patience import PATIENCE
from pipelines.video.decoder import windows
from pipelines.video.listing import Video
from served import SIDE, Served, serving
from sgmg.masks import mask_to_rle, rle_area
from sgmg.segmenter import Segmenter

pytestmark = pytest.mark.slow
DOCS = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def post(served: Served, path: str, **more: Any) -> httpx.Response:
    """Sends a request and waits for its answer."""
    return httpx.post(f"{served.url}{path}", timeout=PATIENCE, **more)


def ask(served: Served, video: Path, sentences: Sequence[str], **fields: Any) -> httpx.Response:
    """Asks for what sentences describe in a video."""
    files = {"video": (video.name, video.read_bytes())}
    return post(served, "/segment", files=files, data={"sentences": list(sentences), **fields})


def keep(served: Served, video: Path, **fields: Any) -> dict[str, Any]:
    """Has a video kept."""
    answer = post(served, "/videos", files={"video": (video.name, video.read_bytes())}, data=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def lines_of(text: str) -> list[dict[str, Any]]:
    """The lines of an answer."""
    return [json.loads(line) for line in text.splitlines()]


def masks_of(lines: Sequence[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """The masks of an answer, by sentence and frame."""
    return {(one["sentence"], one["frame"]): one["rle"]["counts"] for one in lines if "rle" in one}


def frames_of(video: Path) -> np.ndarray:
    """All frames of a video, as the service decodes them."""
    return np.concatenate([one.frames for one in windows(Video(str(video)), length=1000, overlap=0)])


def segmented(served: Served, frames: np.ndarray, sentences: Sequence[str]) -> dict[tuple[int, int], str]:
    """What `Segmenter` finds in these frames, taken as one window."""
    found = Segmenter.from_checkpoint(served.checkpoint, device="cpu", short_side=SIDE)(frames, sentences)
    return {
        (sentence, frame): mask_to_rle(mask)
        for sentence, track in enumerate(found.masks)
        for frame, mask in enumerate(track)
    }


def long_video(folder: Path, frames: int = 64) -> Path:
    """A video of several windows."""
    return write_video(folder / "long.mp4", moving(5, frames, SIDE, 56), codec="libx264")


@pytest.mark.usefixtures("one_thread")
def test_masks_of_a_video_are_those_of_the_segmenter(served: Served) -> None:
    lines = lines_of(ask(served, served.video, served.sentences).text)
    assert lines[0]["video"] == {"width": 56, "height": 40, "frames": 12, "fps": 10.0, "seconds": 1.2, "windows": 1}
    assert lines[0]["sentences"] == list(served.sentences)
    assert lines[-1]["done"]
    assert [one["status"] for one in lines[-1]["tracks"]] == ["ok", "ok"]
    assert [one["time"] for one in lines if one.get("sentence") == 1 and "time" in one] == [t / 10 for t in range(12)]
    assert masks_of(lines) == segmented(served, frames_of(served.video), served.sentences)


@pytest.mark.usefixtures("one_thread")
def test_masks_of_images_are_those_of_the_segmenter_in_their_own_size(served: Served) -> None:
    frames = np.stack(list(moving(4, 3, 64, 96)))
    files = [("images", (f"../{number}.png", png(frame))) for number, frame in enumerate(frames)]
    lines = lines_of(post(served, "/segment", files=files, data={"sentences": served.sentences[:1]}).text)
    assert masks_of(lines) == segmented(served, frames, served.sentences[:1])


@pytest.mark.usefixtures("one_thread")
def test_windows_of_a_long_video_that_are_independent_are_those_of_the_segmenter(
    served: Served, tmp_path: Path
) -> None:
    video = long_video(tmp_path)
    lines = lines_of(ask(served, video, served.sentences, independent_windows=True).text)
    frames = frames_of(video)
    assert lines[0]["video"]["windows"] == 4
    for start in range(0, len(frames), 16):
        expected = segmented(served, frames[start : start + 16], served.sentences)
        got = {key: rle for key, rle in masks_of(lines).items() if start <= key[1] < start + 16}
        assert got == {(sentence, start + frame): rle for (sentence, frame), rle in expected.items()}


def test_files_hold_what_the_lines_say(served: Served) -> None:
    masks = masks_of(lines_of(ask(served, served.video, served.sentences).text))
    coco = ask(served, served.video, served.sentences, format="coco")
    assert coco.headers["content-disposition"] == 'attachment; filename="coco.json"'
    annotations = coco.json()["annotations"]
    filled = [rle for rle in masks.values() if rle_area(rle, (40, 56))]
    assert sorted(one["segmentation"]["counts"] for one in annotations) == sorted(filled)
    tracks = ask(served, served.video, served.sentences, format="youtube-vis").json()["annotations"]
    assert len(tracks) == 2
    for format, names in (("png", 24), ("davis", 13)):
        with zipfile.ZipFile(io.BytesIO(ask(served, served.video, served.sentences, format=format).content)) as archive:
            assert len(archive.namelist()) == names
            assert archive.testzip() is None
    overlay = ask(served, served.video, served.sentences, format="overlay")
    with av.open(io.BytesIO(overlay.content), mode="r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_kept_video_answers_as_one_that_is_not_kept(served: Served, tmp_path: Path) -> None:
    video = long_video(tmp_path)
    kept = keep(served, video)
    assert not kept["known"]
    assert (kept["frames"], kept["windows"], len(kept["times"])) == (64, 5, 64)
    for sentence in served.sentences:
        body = {"sentences": [sentence]}
        assert post(served, f"/videos/{kept['id']}/sentences", json=body).text == ask(served, video, [sentence]).text
    again = keep(served, video)
    assert again["known"]
    assert again["id"] == kept["id"]
    assert keep(served, video, fps=5)["frames"] == 32
    coco = post(served, f"/videos/{kept['id']}/sentences", json={"sentences": ["a dog"], "format": "overlay"})
    assert coco.headers["content-type"] == "video/mp4"
    assert httpx.delete(f"{served.url}/videos/{kept['id']}").status_code == 204
    gone = httpx.get(f"{served.url}/videos/{kept['id']}")
    assert (gone.status_code, gone.json()["error"].split(":")[0]) == (404, "There is no video of this id")


def png(image: np.ndarray) -> bytes:
    """An image as PNG."""
    written, data = cv2.imencode(".png", image[..., ::-1])
    assert written
    return data.tobytes()


VIDEO = ("video", ("a.mp4", b"no video"))
BAD = {
    "nothing": ({}, {"sentences": "a"}, 422, "Send either one file as the field video, or files as the field images."),
    "both": ([VIDEO, ("images", ("a", b"x"))], {"sentences": "a"}, 422, "Send either one file as the field video"),
    "no sentence": ([VIDEO], {}, 422, "No sentence is asked."),
    "an empty sentence": ([VIDEO], {"sentences": ["a", " "]}, 422, "Sentence 2 cannot be asked"),
    "200 sentences": ([VIDEO], {"sentences": ["a"] * 200}, 413, "200 sentences are asked, the limit is 64."),
    "no video": ([VIDEO], {"sentences": "a"}, 422, "The video cannot be used: the file is no video, or cut short"),
    "0 bytes": ([("video", ("a.mp4", b""))], {"sentences": "a"}, 422, "The file 'a.mp4' is empty."),
    "no image": ([("images", ("a.txt", b"text"))], {"sentences": "a"}, 422, "'a.txt' is no image"),
    "a wrong field": ([VIDEO], {"sentences": "a", "colour": "red"}, 422, "There is no field 'colour'."),
    "a wrong format": ([VIDEO], {"sentences": "a", "format": "gif"}, 422, "The field format cannot be used"),
    "a wrong rate": ([VIDEO], {"sentences": "a", "fps": "-1"}, 422, "fps must be above 0"),
    "a wrong score": ([VIDEO], {"sentences": "a", "min_score": "2"}, 422, "min_score is 2.0."),
    "8K": (
        [("images", ("a.png", png(np.zeros((4320, 7680, 3), np.uint8))))], {"sentences": "a"},
        413, "The frames have 7680 x 4320 = 33177600 pixels, the limit is 9437184.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_in_one_sentence(served: Served, case: str) -> None:
    files, data, status, said = BAD[case]
    answer = post(served, "/segment", files=files or None, data=data)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]
    assert str(served.folder) not in answer.text


def test_a_page_of_elsewhere_is_refused(served: Served) -> None:
    of_others = httpx.get(f"{served.url}/healthz", headers={"host": "example.com"})
    assert (of_others.status_code, "example.com" in of_others.json()["error"]) == (403, True)
    assert httpx.get(f"{served.url}/healthz", headers={"origin": "http://example.com"}).status_code == 403


def test_an_upload_of_2_gb_is_refused_before_it_is_sent(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    kind = "content-type: multipart/form-data; boundary=x\r\n"
    head = f"POST /segment HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(f"{head}{kind}content-length: {2**31}\r\n\r\n--x".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"more than 512 MB" in answer


def test_a_client_that_leaves_ends_the_work_within_a_window(served: Served, tmp_path: Path) -> None:
    video = long_video(tmp_path, 400)
    before = served.counts()["sgmg_frames_total"]
    with (
        httpx.Client(timeout=PATIENCE) as client,
        client.stream(
            "POST", f"{served.url}/segment", files={"video": video.read_bytes()}, data={"sentences": served.sentences}
        ) as answer,
    ):
        next(answer.iter_lines())
    served.idle()
    assert served.counts()["sgmg_frames_total"] - before < 400
    assert served.counts()['sgmg_requests_total{route="/segment",status="left"}'] >= 1


def test_nothing_is_left_in_the_temporary_folder(served: Served) -> None:
    ask(served, served.video, served.sentences, format="overlay")
    served.idle()
    left = [str(one) for one in served.folder.rglob("*") if one.is_file() and "kept-" not in str(one)]
    assert left == []


def test_clients_at_the_same_time_get_what_each_would_get_alone(served: Served, tmp_path: Path) -> None:
    videos = [write_video(tmp_path / f"{seed}.mp4", moving(seed, 8, SIDE, 56), codec="libx264") for seed in range(4)]
    alone = [ask(served, video, served.sentences).text for video in videos]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda video: ask(served, video, served.sentences).text, videos * 4))
    assert together == alone * 4


def test_health_numbers_and_documentation_are_told(served: Served) -> None:
    health = httpx.get(f"{served.url}/healthz").json()
    assert (health["status"], health["replicas"], health["live"]) == ("ok", 1, True)
    assert health["limits"]["sentences"] == 64
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    assert set(paths) == {"/segment", "/videos", "/videos/{id}", "/videos/{id}/sentences", "/healthz", "/metrics"}
    page = httpx.get(f"{served.url}/docs").text
    assert "http://" not in page
    assert "https://" not in page


def test_the_commands_of_the_documentation_do_what_they_say(served: Served, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(served.video.read_bytes())
    (block,) = re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL)
    commands = block.replace("http://127.0.0.1:8000", served.url).replace("curl ", "curl --fail --no-progress-meter ")
    done = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = done.stdout.splitlines()
    ends = [json.loads(line) for line in answers if line.startswith('{"done"')]
    assert [len(one["tracks"]) for one in ends] == [2, 1]
    assert '"status":"ok"' in answers[-1] or answers[-1].startswith("sgmg_")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert container.streams.video[0].frames == 12


def test_the_examples_of_the_documentation_run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video.mp4").write_bytes(served.video.read_bytes())
    monkeypatch.chdir(tmp_path)
    block, streamed = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    segmenter = Segmenter.from_checkpoint(served.checkpoint, device="cpu", short_side=SIDE)
    names: dict[str, Any] = {"segmenter": segmenter, "frames": frames_of(served.video)}
    exec(compile(streamed, "serving.md", "exec"), names)
    assert names["answer"].masks.shape == (1, 40, 56)
    assert names["stream"].sentences == ("the dog on the left", "the ball")
    exec(compile(block.replace("http://127.0.0.1:8000", served.url), "serving.md", "exec"), names)
    assert json.loads(names["lines"][-1])["done"]
    names["files"]["video"].close()


@pytest.mark.usefixtures("one_thread")
def test_frames_of_a_camera_are_answered_as_a_stream_of_the_segmenter_does(served: Served) -> None:
    frames = list(moving(7, 6, SIDE, 56))
    stream = Segmenter.from_checkpoint(served.checkpoint, device="cpu", short_side=SIDE).stream(["a dog"], context=3)
    url = served.url.replace("http", "ws")
    with connect(f"{url}/live") as socket:
        socket.send(png(frames[0]))
        assert "No sentence is asked yet" in json.loads(socket.recv(PATIENCE))["error"]
        socket.send(json.dumps({"sentences": ["a dog"], "context": 3}))
        assert json.loads(socket.recv(PATIENCE)) == {"sentences": ["a dog"]}
        for number, frame in enumerate(frames):
            if number == 3:
                socket.send(json.dumps({"sentences": ["the ball", "a dog"], "context": 3}))
                assert json.loads(socket.recv(PATIENCE))["sentences"] == ["the ball", "a dog"]
                stream.ask(["the ball", "a dog"])
            socket.send(png(frame))
            answer, expected = json.loads(socket.recv(PATIENCE)), stream.push(frame)
            assert answer["frame"] == number
            assert [one["sentence"] for one in answer["answers"]] == list(expected.sentences)
            assert [one["rle"]["counts"] for one in answer["answers"]] == [mask_to_rle(mask) for mask in expected.masks]
        socket.send(b"no image")
        assert "is no image" in json.loads(socket.recv(PATIENCE))["error"]
        socket.send("[]")
        assert "The message is not" in json.loads(socket.recv(PATIENCE))["error"]


def test_a_lost_replica_and_a_wrong_token_are_survived(tmp_path: Path) -> None:
    video = long_video(tmp_path, 150)
    with serving(tmp_path, environment={"SGMG_TOKEN": "secret"}) as served:
        url, files = f"{served.url}/segment", {"video": video.read_bytes()}
        for header in ({}, {"authorization": "Bearer Secret"}):
            assert httpx.post(url, files=files, headers=header, timeout=PATIENCE).status_code == 401
        assert httpx.get(f"{served.url}/healthz").status_code == 200
        assert httpx.get(f"{served.url}/metrics").status_code == 401
        right = {"authorization": "Bearer secret"}
        whole = httpx.post(url, files=files, data={"sentences": "a dog"}, headers=right, timeout=PATIENCE).text
        with (
            httpx.Client(timeout=PATIENCE) as client,
            client.stream("POST", url, files=files, data={"sentences": "a dog"}, headers=right) as answer,
        ):
            lines = answer.iter_lines()
            begun = [next(lines), next(lines)]
            (replica,) = served.replicas()
            os.kill(replica.pid, signal.SIGKILL)
            after = [*begun, *lines]
        assert "\n".join(after) + "\n" == whole
        assert b"secret" not in served.log.read_bytes()
    assert list(served.folder.glob("sgmg-*")) == []
