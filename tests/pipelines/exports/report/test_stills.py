from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.drawing.overlay import COLOURS
from pipelines.exports.report.gather import gather
from pipelines.exports.report.stills import draw_stills, stills_of, stills_to_draw
from pipelines.files import Folder
from pipelines.predictions import Prediction

Writer = Callable[..., Path]
Predict = Callable[..., Prediction]
Save = Callable[..., Folder]


@pytest.fixture
def out(make_video: Writer, predict: Predict, save: Save) -> Folder:
    """Predictions of a grey video: the second expression is surest, at its second frame."""
    path = make_video("in/a.mp4", [np.full((48, 64, 3), 100, np.uint8)] * 3)
    masks = np.zeros((2, 3, 48, 64), np.bool_)
    masks[1, 1:, :, :32] = True
    rows = [
        predict("a", str(id), masks[id], source=str(path), frame_names=("00000", "00001", "00002")) for id in (0, 1)
    ]
    return save({"a.parquet": rows})


def written(out: Folder) -> dict[str, str]:
    videos = gather(out)
    draw_stills(out, stills_to_draw(out, videos))
    return stills_of(out, videos)


def test_the_still_of_an_overlay_is_taken_as_it_is(out: Folder) -> None:
    out.write("overlay/a.jpg", b"a picture")
    assert written(out) == {"a": "../overlay/a.jpg"}
    assert out.names("report/thumbs") == []


def test_without_overlay_a_frame_is_decoded_with_its_best_mask(out: Folder) -> None:
    (path,) = written(out).values()
    with Image.open(out.path(f"report/{path}")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels[20, 10] - (np.array(COLOURS[1]) + 100) // 2).max() < 12
    assert np.abs(pixels[20, 50] - 100).max() < 8


def test_a_still_stays_until_its_mask_is_another(out: Folder, predict: Predict, save: Save, tmp_path: Path) -> None:
    (path,) = written(out).values()
    out.write(f"report/{path}", b"kept")
    assert list(written(out).values()) == [path]
    assert out.read(f"report/{path}") == b"kept"
    all_of_it = np.ones((3, 48, 64), np.bool_)
    source = str(tmp_path / "in/a.mp4")
    save({"a.parquet": [predict("a", "0", all_of_it, source=source, frame_names=("00000", "00001", "00002"))]})
    (other,) = written(out).values()
    assert other != path
    assert [f"thumbs/{name}" for name in out.names("report/thumbs")] == [other]


def test_a_video_that_is_gone_has_no_still(out: Folder, tmp_path: Path) -> None:
    (tmp_path / "in/a.mp4").unlink()
    assert written(out) == {}
