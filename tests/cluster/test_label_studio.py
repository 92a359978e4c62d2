"""The Label Studio ML backend: its protocol as label-studio-ml documents it, and predictions of a real service."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from label_studio import AdapterError, Settings, app_of, segment
from label_studio_files import Files
from label_studio_regions import (
    Answers,
    encode_brush,
    frame_rate_of,
    image_regions,
    read_configuration,
    sentences_of,
    video_regions,
)
from pipelines.sources.label_studio_rle import brush_mask, unpack_rle

if TYPE_CHECKING:
    from served import Served

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword"
)  # of pycocotools
HOST = "http://studio.example.com:8080"
IMAGE = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="dog"/><Label value="cat"/></BrushLabels>
<RectangleLabels name="box" toName="image"><Label value="dog"/></RectangleLabels></View>"""
VIDEO = """<View><Labels name="labels" toName="video"><Label value="dog"/></Labels>
<Video name="video" value="$video" frameRate="25.0"/><VideoRectangle name="box" toName="video"/></View>"""
FILES = Files(HOST, "", (), 1000)
AWAY = Settings("http://127.0.0.1:9", "", FILES)
HEAD = [0, 0, 0, 32, 57, 27, 254, 31, 0]
MASK = {"size": [2, 4], "counts": "62"}  # column by column: six 0, two 1


def line(frame: int, box: list[float] | None, sentence: int = 0, fps: float = 25.0) -> dict[str, Any]:
    return {"frame": frame, "time": frame / fps, "sentence": sentence, "score": 0.5, "box": box, "rle": MASK}


def answers(*frames: dict[str, Any]) -> Answers:
    return Answers({"width": 4, "height": 2, "seconds": 0.4, "frames": 10, "fps": 25.0}, list(frames))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (160, 214), (300, 400)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_mask_survives_the_code_of_label_studio(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    values = unpack_rle(encode_brush(mask), mask.size * 4).reshape(*shape, 4)
    assert np.array_equal(values, np.repeat(np.where(mask, 255, 0)[..., None], 4, axis=2))


def test_the_code_of_a_small_mask_is_that_of_label_studios_own_sdk() -> None:
    # Once its encode_rle was asked for 32 zeros; it ends with a byte more, which nobody reads.
    assert encode_brush(np.zeros((2, 4), bool)) == HEAD


def test_a_configuration_of_images_has_masks_and_boxes() -> None:
    medium = read_configuration(IMAGE)
    assert (medium.kind, medium.name, medium.key) == ("Image", "image", "image")
    assert [(one.kind, one.name, one.labels) for one in medium.controls] == [
        ("BrushLabels", "brush", ("dog", "cat")), ("RectangleLabels", "box", ("dog",)),
    ]  # fmt: skip


def test_labels_of_video_rectangles_stand_in_their_own_tag() -> None:
    (control,) = read_configuration(VIDEO).controls
    assert (control.kind, control.labels) == ("VideoRectangle", ("dog",))


@pytest.mark.parametrize(
    ("xml", "message"),
    [("<View", "cannot be read"), ("<View><Text name='t' value='$t'/></View>", "has no <Image>"),
     ("<!DOCTYPE a [<!ENTITY e 'x'>]><View>&e;</View>", "cannot be read")],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used_is_refused(xml: str, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        read_configuration(xml)


@pytest.mark.parametrize(
    ("data", "sentences"),
    [({"sentence": "a dog"}, ["a dog"]), ({"sentences": ["a", "b", "a"]}, ["a", "b"]), ({"text": "t"}, ["t"]),
     ({"sentence": ""}, ["dog", "cat"])],
)  # fmt: skip
def test_sentences_come_from_the_task_or_else_from_the_labels(data: dict[str, Any], sentences: list[str]) -> None:
    assert sentences_of(data, read_configuration(IMAGE)) == sentences


@pytest.mark.parametrize(("given", "rate"), [("", 24.0), ("25.0", 25.0), ("$fps", 30.0)])
def test_frames_are_counted_as_label_studio_counts_them(given: str, rate: float) -> None:
    assert frame_rate_of(replace(read_configuration(VIDEO), frame_rate=given), {"fps": 30}) == rate


@pytest.mark.parametrize("given", ["$missing", "fast", "0", "inf"])
def test_a_frame_rate_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(AdapterError, match="frameRate"):
        frame_rate_of(replace(read_configuration(VIDEO), frame_rate=given), {})


def test_an_image_gets_a_mask_and_a_box_in_percent() -> None:
    brush, box = image_regions(read_configuration(IMAGE), ["dog"], answers(line(0, [3.0, 0.0, 4.0, 2.0])))
    assert (brush["type"], brush["from_name"], brush["to_name"]) == ("brushlabels", "brush", "image")
    assert (brush["original_width"], brush["original_height"]) == (4, 2)
    assert brush["value"]["brushlabels"] == ["dog"]
    assert brush_mask(brush["value"]["rle"], (2, 4)).tolist() == [[False, False, False, True]] * 2
    assert box["value"] == {
        "x": 75.0, "y": 0.0, "width": 25.0, "height": 100.0, "rotation": 0, "rectanglelabels": ["dog"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "drawn"),
    [("cat", [("brush", "cat")]), ("dog", [("brush", "dog"), ("box", "dog")]),
     ("the one that runs", [("brush", "dog"), ("box", "dog")])],
)  # fmt: skip
def test_a_label_is_drawn_with_its_own_controls_and_another_sentence_with_all(
    sentence: str, drawn: list[tuple[str, str]]
) -> None:
    regions = image_regions(read_configuration(IMAGE), [sentence], answers(line(0, [3.0, 0.0, 4.0, 2.0])))
    assert [(one["from_name"], one["value"][one["type"]][0]) for one in regions] == drawn
    assert all(one["meta"] == {"text": [sentence]} for one in regions)


@pytest.mark.parametrize("own", [5, {"a": 1}, ["a dog", 5]])
def test_sentences_that_are_no_text_are_refused(own: object) -> None:
    with pytest.raises(AdapterError, match="must be a text or a list of texts"):
        sentences_of({"sentence": own}, read_configuration(IMAGE))


def test_a_box_stays_until_the_end_of_a_video_where_the_object_is_there() -> None:
    frames = [line(number, [0.0, 0.0, 2.0, 1.0]) for number in range(10)]
    (region,) = video_regions(read_configuration(VIDEO), ["dog"], answers(*frames), 25.0)
    assert [key["enabled"] for key in region["value"]["sequence"]] == [True] * 10


def test_a_box_of_a_video_ends_where_the_object_is_gone() -> None:
    box = [0.0, 0.0, 2.0, 1.0]
    frames = [line(0, box), line(1, box), line(2, None), line(3, box)]
    (region,) = video_regions(read_configuration(VIDEO), ["dog"], answers(*frames), 25.0)
    value = region["value"]
    assert (region["type"], value["labels"], value["framesCount"], value["duration"]) == (
        "videorectangle", ["dog"], 10, 0.4
    )  # fmt: skip
    assert [(key["frame"], key["enabled"]) for key in value["sequence"]] == [(1, True), (2, False), (4, False)]
    assert value["sequence"][0] | {"time": 0.04, "x": 0.0, "width": 50.0, "height": 50.0} == value["sequence"][0]


def test_frames_of_a_faster_video_share_the_key_frames_of_label_studio() -> None:
    frames = [line(number, [0.0, 0.0, 1.0, 1.0], fps=50.0) for number in range(20)]
    (region,) = video_regions(read_configuration(VIDEO), ["dog"], answers(*frames), 25.0)
    numbers = [key["frame"] for key in region["value"]["sequence"]]
    assert numbers == sorted(set(numbers))
    assert [key["enabled"] for key in region["value"]["sequence"]] == [True] * (len(numbers) - 1) + [False]


def test_what_is_not_found_gets_no_region() -> None:
    assert image_regions(read_configuration(IMAGE), ["dog"], answers(line(0, None))) == []
    assert video_regions(read_configuration(VIDEO), ["dog"], answers(line(0, None)), 25.0) == []


@pytest.mark.parametrize(
    ("address", "url"),
    [("/data/upload/1/a.mp4", f"{HOST}/data/upload/1/a.mp4"), (f"{HOST}/data/b.png", f"{HOST}/data/b.png"),
     ("s3://b/k.png", f"{HOST}/tasks/7/presign/?fileuri=czM6Ly9iL2sucG5n"),
     ("https://bucket.example.com/a", "https://bucket.example.com/a")],
)  # fmt: skip
def test_files_of_label_studio_its_buckets_and_allowed_hosts_are_fetched(address: str, url: str) -> None:
    assert str(replace(FILES, hosts=("bucket.example.com",)).url_of(address, 7)) == url


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "//evil.example.com/a",
     "http://studio.example.com:8080@evil.example.com/", "http://studio.example.com:9090/a", "https://studio.example.com:8080/",
     "", None, 3, "a.mp4", "http://studio.example.com.evil.example.com:8080/"],
)  # fmt: skip
def test_files_of_others_are_not_fetched(address: object) -> None:
    with pytest.raises(AdapterError, match=r"no file of|no address"):
        FILES.url_of(address, 7)


@dataclass(frozen=True)
class Studio:
    """What Label Studio answers about files, on a port of this machine: /data/NAME with a token, and a redirect."""

    url: str
    files: dict[str, bytes]


class _Files(BaseHTTPRequestHandler):
    def __init__(self, files: dict[str, bytes], *arguments: Any) -> None:
        self.files = files
        super().__init__(*arguments)

    def do_GET(self) -> None:
        own = self.headers["Host"].startswith("127.0.0.1")
        allowed = self.headers.get("Authorization") == ("Token key" if own else None)
        found = self.files.get(self.path)
        to = {"/moved": "http://169.254.169.254/", "/round": "/round"}.get(self.path)
        if self.path == "/bucket":
            to = f"http://localhost:{self.headers['Host'].partition(':')[2]}/data/small"
        self.send_response(303 if to else 401 if not allowed else 200 if found else 404)
        if to:
            self.send_header("Location", to)
        self.end_headers()
        self.wfile.write(found if found and allowed else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def studio() -> Iterator[Studio]:
    files: dict[str, bytes] = {"/data/small": b"x" * 10, "/data/large": b"x" * 2000}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, files)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Studio(f"http://127.0.0.1:{server.server_port}", files)
        server.shutdown()


def files_of(studio: Studio, key: str = "key") -> Files:
    return Files(studio.url, key, ("localhost",), 1000)


@pytest.mark.parametrize("path", ["/data/small", "/bucket"])
def test_a_file_is_fetched_with_the_key_and_from_its_bucket_without(studio: Studio, path: str) -> None:
    with files_of(studio).fetched(httpx.URL(studio.url + path)) as file:
        assert file.read() == b"x" * 10


@pytest.mark.parametrize(
    ("path", "key", "message"),
    [("/data/large", "key", "--max-mb"), ("/data/small", "wrong", "401"), ("/moved", "key", "169.254.*no file of"),
     ("/round", "key", "redirects"), ("/data/none", "key", "404")],
)  # fmt: skip
def test_a_file_that_is_too_large_or_not_given_is_refused(studio: Studio, path: str, key: str, message: str) -> None:
    with (
        pytest.raises(AdapterError, match=message),
        files_of(studio, key).fetched(httpx.URL(studio.url + path)),
    ):
        pytest.fail("it was fetched")


class _Busy(BaseHTTPRequestHandler):
    """A service that refuses the first request as too many, and answers a sentence that has a line separator in it."""

    def __init__(self, lengths: list[int], *arguments: Any) -> None:
        self.lengths = lengths
        super().__init__(*arguments)

    def do_POST(self) -> None:
        self.lengths.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(429 if len(self.lengths) == 1 else 200)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write('{"video": {}, "sentences": ["a\u2028b\u0085c"]}\n{"done": true}\n'.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_busy_service_is_asked_again_and_its_lines_end_at_newlines_alone() -> None:
    lengths: list[int] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Busy, lengths)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = replace(AWAY, service=f"http://127.0.0.1:{server.server_port}")
        answer = segment(BytesIO(b"x" * 100), read_configuration(IMAGE), ["a"], settings)
        server.shutdown()
    assert answer.frames == []
    assert len(lengths) == 2
    assert lengths[0] == lengths[1] > 100


def test_it_says_that_it_is_up() -> None:
    client = TestClient(app_of(AWAY))
    assert client.get("/health").json() == client.get("/").json() == {"status": "UP", "model_class": "SgMg"}


def test_annotations_are_accepted_and_other_events_known_as_unknown() -> None:
    client = TestClient(app_of(AWAY))
    created = client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 1}})
    assert (created.status_code, created.json()["status"]) == (201, "ok")
    other = client.post("/webhook", json={"action": "PROJECT_CREATED"})
    assert (other.status_code, other.json()) == (200, {"status": "Unknown event"})


@pytest.mark.parametrize(
    ("path", "body"),
    [("/setup", {"project": "1.1", "schema": IMAGE, "hostname": HOST, "access_token": "t", "extra_params": None}),
     ("/predict", {"tasks": [], "label_config": IMAGE, "project": "1.1", "params": {"login": None}})],
)  # fmt: skip
def test_a_service_that_is_away_is_named(path: str, body: dict[str, Any]) -> None:
    answer = TestClient(app_of(AWAY)).post(path, json=body)
    assert answer.status_code == 503
    assert "Check SGMG_URL" in answer.json()["error"]


def _ask(served: "Served", studio: Studio, tasks: list[dict[str, Any]], label_config: str) -> dict[str, Any]:
    settings = Settings(served.url, "", Files(studio.url, "key", (), 10**8))
    request = {"tasks": tasks, "project": "1.1700000000", "label_config": label_config, "params": {"context": None}}
    return TestClient(app_of(settings)).post("/predict", json=request).json()


@pytest.mark.slow
def test_a_video_gets_boxes_and_several_tasks_one_prediction(served: "Served", studio: Studio) -> None:
    studio.files["/data/upload/1/video.mp4"] = served.video.read_bytes()
    task = {"id": 1, "data": {"video": "/data/upload/1/video.mp4", "sentences": list(served.sentences)}}
    lost = {"id": 2, "data": {"video": "/data/upload/1/none.mp4"}}
    answer = _ask(served, studio, [lost, task], VIDEO)
    (prediction,) = answer["results"]
    assert prediction["model_version"] == answer["model_version"]
    assert {one["meta"]["text"][0] for one in prediction["result"]} <= set(served.sentences)
    assert prediction["result"]
    assert all(0 <= key["x"] <= key["x"] + key["width"] <= 100.001
               for one in prediction["result"] for key in one["value"]["sequence"])  # fmt: skip
    assert "404" in _ask(served, studio, [lost], VIDEO)["error"]


@pytest.mark.slow
def test_an_image_gets_the_mask_of_the_service(served: "Served", studio: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)).save(picture)
    studio.files["/data/image.png"] = picture.read_bytes()
    (prediction,) = _ask(served, studio, [{"id": 1, "data": {"image": "/data/image.png"}}], IMAGE)["results"]
    for region in (one for one in prediction["result"] if one["type"] == "brushlabels"):
        assert brush_mask(region["value"]["rle"], (40, 56)).any()
    assert {one["type"] for one in prediction["result"]} <= {"brushlabels", "rectanglelabels"}
    assert prediction["result"]
