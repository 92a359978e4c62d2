"""A CVAT auto-annotation function: it masks the frames of a task with what a service of jobs/serve.py finds.

    pip install cvat-cli "cvat-sdk[masks]" opencv-python-headless pycocotools
    export SGMG_URL=http://127.0.0.1:8000 SGMG_TOKEN=...    # the token, if the service has one

Once, a whole task, from here:

    cvat-cli --server-host https://cvat.example.com --auth USER task auto-annotate TASK \
        --function-file cluster/adapters/cvat_function.py -p "sentences=str:dog=the brown dog on the left;a red car"

Or on request of whoever annotates, as a model of CVAT's AI tools (the name is the one that CVAT shows):

    cvat-cli ... function create-native SgMg --function-file ... -p "sentences=str:..."    # prints an id
    cvat-cli ... function run-agent ID --function-file ... -p "sentences=str:..."

A sentence is the name of the label that it gives, unless it is written LABEL=SENTENCE. CVAT hands over single frames,
so the object is looked for in each of them anew; for whole videos, jobs/annotate.py writes CVAT's XML.
"""

import io
import json
import os
from collections.abc import Iterator
from typing import Any

import cv2
import cvat_sdk.auto_annotation as cvataa
import cvat_sdk.models as models
import numpy as np
import PIL.Image
import pycocotools.mask
import urllib3
from cvat_sdk.masks import encode_mask

_TIMEOUT = urllib3.Timeout(connect=10, read=300)  # seconds
# A service that is busy, or was asked too often in a minute, says after how many seconds to try again.
_BUSY = urllib3.Retry(
    10, connect=0, read=0, other=0, redirect=0, status_forcelist=[429], allowed_methods=None, raise_on_status=False
)


class ServiceError(Exception):
    """The service is away or refuses a frame; the text says why, and how to mend it."""


class SgmgFunction:
    """A detection function of cvat-sdk.

    Args:
        sentences: by the names of their labels.
        url, token: of the service.
    """

    def __init__(self, sentences: dict[str, str], url: str, token: str) -> None:
        self._sentences, self._url = list(sentences.values()), f"{url.rstrip('/')}/segment"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(headers=self._headers, timeout=_TIMEOUT)
        self._spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(label, number, type="mask") for number, label in enumerate(sentences)]
        )

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels, numbered as their sentences are."""
        return self._spec

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Returns the masks of a frame, or polygons where CVAT wants these.

        Raises:
            ServiceError: the service is away or refuses the frame.
        """
        return [
            shape
            for answer in self._answers(image, context.conf_threshold)
            for shape in _shapes(answer["sentence"], _decoded(answer), context.conv_mask_to_poly)
        ]

    def _answers(self, image: PIL.Image.Image, threshold: float | None) -> list[dict[str, Any]]:
        """Returns the answers of the service to the sentences whose object is in an image."""
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG", compress_level=1)
        fields: list[Any] = [("sentences", sentence) for sentence in self._sentences]
        fields.append(("images", ("frame.png", file.getvalue(), "image/png")))
        if threshold is not None:
            fields.append(("min_score", str(threshold)))
        try:
            reply = self._pool.request("POST", self._url, fields=fields, retries=_BUSY)
        except urllib3.exceptions.HTTPError as error:
            raise ServiceError(f"{self._url} cannot be reached: {error}. Check SGMG_URL.") from error
        if reply.status != 200:
            raise ServiceError(f"{self._url} answered {reply.status}: {reply.data.decode(errors='replace')}")
        _, *answers, last = [json.loads(line) for line in reply.data.splitlines() if line]
        if not last.get("done"):
            raise ServiceError(f"{self._url} stopped in the middle: {last.get('error', 'no reason given')}")
        return [answer for answer in answers if answer["box"]]


def create(sentences: str, url: str = "", token: str = "") -> SgmgFunction:
    """Returns the function; cvat-cli calls this with what stands after -p.

    Args:
        sentences: SENTENCE or LABEL=SENTENCE, several separated by semicolons.
        url: of the service. Default: SGMG_URL, or else port 8000 of this machine.
        token: of the service. Default: SGMG_TOKEN. Everybody on a machine sees its command lines.
    """
    url = url or os.environ.get("SGMG_URL", "http://127.0.0.1:8000")
    return SgmgFunction(parse_sentences(sentences), url, token or os.environ.get("SGMG_TOKEN", ""))


def parse_sentences(text: str) -> dict[str, str]:
    """Returns sentences by the names of their labels.

    Args:
        text: SENTENCE or LABEL=SENTENCE, several separated by semicolons.

    Raises:
        ValueError: there is none, an empty one, or a label has two.
    """
    sentences: dict[str, str] = {}
    for part in text.split(";"):
        label, equals, sentence = (one.strip() for one in part.partition("="))
        if not label or (equals and not sentence):
            raise ValueError(f"{part!r} in {text!r} is neither SENTENCE nor LABEL=SENTENCE.")
        if label in sentences:
            raise ValueError(f"The label {label!r} stands twice in {text!r}. CVAT's labels differ in their names.")
        sentences[label] = sentence or label
    return sentences


def _decoded(answer: dict[str, Any]) -> np.ndarray:
    """Returns the mask of an answer: height x width, bool."""
    rle = answer["rle"]
    return pycocotools.mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def _shapes(label: int, mask: np.ndarray, as_polygons: bool) -> Iterator[models.LabeledShapeRequest]:
    """Yields a mask, or the outlines of its parts."""
    if not mask.any():
        return
    if not as_polygons:
        yield cvataa.mask(label, encode_mask(mask))
        return
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for outline in outlines:
        if len(outline) >= 3:
            yield cvataa.polygon(label, outline.astype(float).ravel().tolist())
