"""Small made-up predictions, as jobs/predict.py leaves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack, predictions_table
from sgmg.masks import mask_to_xyxy, masks_to_rles

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
