"""What tests of several modules in pipelines/ share."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from sgmg.masks import mask_to_xyxy, masks_to_rles

Writer = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> Writer:
    """Writes frames (h w 3, or h w 4 with transparency) to a video file, every 12th a key frame; returns its path.

    Its arguments: name, frames, and if wanted codec, pixels (a pixel format), rate, stamps (milliseconds a frame),
    aspect (of a pixel), options (of the codec).
    """

    def write(
        name: str,
        frames: Iterable[np.ndarray],
        codec: str = "libx264",
        pixels: str = "yuv420p",
        rate: int = 25,
        stamps: Iterable[int] | None = None,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = None if stamps is None else iter(stamps)
        with av.open(f"file:{path}", mode="w") as container:
            stream = None
            for image in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=rate, options=options or {})
                    assert isinstance(stream, av.VideoStream)
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt, stream.codec_context.gop_size = pixels, 12
                    if aspect is not None:
                        stream.codec_context.sample_aspect_ratio = aspect
                    if times is not None:
                        stream.codec_context.time_base = Fraction(1, 1000)
                frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
                if times is not None:
                    frame.pts, frame.time_base = next(times), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            assert stream is not None
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def latin_1() -> Callable[[Path], Path]:
    """Spoils the tag of a video file that names its writer, so that it is no UTF-8: a café in Latin-1."""

    def spoil(path: Path) -> Path:
        data = path.read_bytes()
        assert b"Lavf" in data
        path.write_bytes(data.replace(b"Lavf", "café".encode("latin-1")))
        return path

    return spoil


Predict = Callable[..., Prediction]
Save = Callable[..., Folder]


def _track(masks: np.ndarray, score: float) -> QueryTrack:
    boxes = tuple(tuple(map(float, box)) for box in mask_to_xyxy(masks))
    return QueryTrack(tuple(masks_to_rles(masks)), boxes, (score,) * len(masks))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def predict() -> Predict:
    """A prediction of masks (t, h, w), or of queries of them; what else it says can be given by name.

    Scores are whole eighths, so that Parquet's 32 bits hold them exactly.
    """

    def made(video: str, expression: str, *masks: np.ndarray, **values: Any) -> Prediction:
        t, height, width = masks[0].shape
        said = {
            "dataset": "ref-youtube-vos",
            "split": "valid",
            "text": f"the {expression}th thing",
            "frame_names": tuple(f"{5 * frame:05d}" for frame in range(t)),
            "queries": tuple(_track(each, 0.75 - 0.125 * place) for place, each in enumerate(masks)),
            "score": 0.75,
            "fingerprint": "a checkpoint",
            "source": "made up",
            "source_fingerprint": "",
            "external_id": expression,
        }
        return Prediction(video=video, expression=expression, width=width, height=height, **(said | values))

    return made


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes the predictions of each named file; the folder of the run."""

    def written(files: dict[str, list[Prediction]], row_group_size: int = 1000) -> Folder:
        folder = tmp_path / "run" / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        for name, predictions in files.items():
            pq.write_table(predictions_table(predictions), folder / name, row_group_size=row_group_size)
        return Folder(str(tmp_path / "run"))

    return written


@pytest.fixture
def blobs() -> Callable[..., np.ndarray]:
    """Masks (t, h, w) with some pixels, other ones for other seeds."""

    def drawn(t: int = 2, height: int = 6, width: int = 9, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).random((t, height, width)) < 0.4

    return drawn
