"""The CVAT function: cvat-sdk's own types and rules for what it gives, and masks of a real service.

cvat-sdk is no dependency of this project: where it is not installed these tests are skipped.
"""

import importlib
import threading
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from served import Served

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
MISSING = "cvat-sdk is not installed: pip install cvat-sdk[masks]"
cvataa = pytest.importorskip("cvat_sdk.auto_annotation", reason=MISSING)
masks = pytest.importorskip("cvat_sdk.masks", reason=MISSING)
cvat_function = importlib.import_module("cvat_function")
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))


@dataclass(frozen=True)
class Context(cvataa.DetectionFunctionContext):
    """What CVAT tells of a frame."""

    frame_name: str = "frame.png"
    conf_threshold: float | None = None
    conv_mask_to_poly: bool = False


def test_sentences_are_labels_or_have_them() -> None:
    parsed = cvat_function.parse_sentences("dog=the brown dog; a red car")
    assert parsed == {"dog": "the brown dog", "a red car": "a red car"}


@pytest.mark.parametrize("text", ["", "a;;b", "=a", "dog=", "a;a", "dog=a;dog=b"])
def test_sentences_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither|twice"):
        cvat_function.parse_sentences(text)


def test_the_labels_are_numbered_as_their_sentences() -> None:
    spec = cvat_function.create(sentences="dog=the brown dog;a red car").spec
    assert isinstance(spec, cvataa.DetectionFunctionSpec)
    assert [(label.name, label.id, label.type) for label in spec.labels] == [
        ("dog", 0, "mask"),
        ("a red car", 1, "mask"),
    ]


def test_a_service_that_is_away_is_named() -> None:
    with pytest.raises(cvat_function.ServiceError, match="Check SGMG_URL"):
        cvat_function.create(sentences="a dog", url="http://127.0.0.1:9").detect(Context(), IMAGE)


class _Busy(BaseHTTPRequestHandler):
    """A service that refuses the first request as too many, and finds nothing in the second."""

    def __init__(self, lengths: list[int], *arguments: Any) -> None:
        self.lengths = lengths
        super().__init__(*arguments)

    def do_POST(self) -> None:
        self.lengths.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(429 if len(self.lengths) == 1 else 200)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b'{"video": {}, "sentences": ["a dog"]}\n{"done": true}\n')

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_busy_service_is_asked_again() -> None:
    lengths: list[int] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Busy, lengths)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        function = cvat_function.create(sentences="a dog", url=f"http://127.0.0.1:{server.server_port}")
        assert function.detect(Context(), IMAGE) == []
        server.shutdown()
    assert len(lengths) == 2
    assert lengths[0] == lengths[1] > 0


@pytest.mark.slow
def test_a_frame_gets_masks_polygons_or_nothing(served: "Served") -> None:
    function = cvat_function.create(sentences=f"first={served.sentences[0]};{served.sentences[1]}", url=served.url)
    shapes = function.detect(Context(), IMAGE)
    assert {shape.label_id for shape in shapes} <= {0, 1}
    assert shapes
    for shape in shapes:
        assert (str(shape.type), shape.frame) == ("mask", 0)
        assert masks.decode_mask(shape.points, image_width=56, image_height=40).any()
    outlines = function.detect(Context(conv_mask_to_poly=True), IMAGE)
    assert {str(shape.type) for shape in outlines} <= {"polygon"}
    assert all(len(shape.points) >= 6 and len(shape.points) % 2 == 0 for shape in outlines)
    assert function.detect(Context(conf_threshold=1.0), IMAGE) == []
