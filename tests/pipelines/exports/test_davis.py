from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.exports.davis import check_object_maps, write_object_maps
from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import read_object_maps
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions

IDS = np.random.default_rng(0).integers(0, 3, (4, 2, 6, 9))  # annotator, frame, height, width


def merged(annotator: int) -> tuple[bytes, ...]:
    return tuple(encode_object_map(ids) for ids in IDS[annotator])


@pytest.fixture
def predictions(predict: Any, save: Any, blobs: Any) -> Predictions:
    """Two objects, four annotators; the row of each annotator's first object holds the merged maps."""
    rows = [
        predict(
            "dogs-jump",
            str(number),
            blobs(),
            dataset="ref-davis17",
            frame_names=("00007", "00009"),
            annotator=number % 4,
            merged=merged(number) if number < 4 else None,
        )
        for number in range(8)
    ]
    return read_predictions(save({"v.parquet": rows}))


@pytest.mark.parametrize("name", ["maps.zip", "maps"])
def test_maps_are_filed_by_annotator_and_counted_from_0(predictions: Predictions, tmp_path: Path, name: str) -> None:
    out = Folder(str(tmp_path))
    assert write_object_maps(predictions, out, name) == 8
    found = list(read_object_maps(tmp_path / name))
    assert [(one.annotator, one.video, one.frame) for one in found] == [
        (annotator, "dogs-jump", frame) for annotator in range(4) for frame in ("00000", "00001")
    ]
    np.testing.assert_array_equal(np.stack([one.ids for one in found]), IDS.reshape(8, 6, 9))
    assert check_object_maps(predictions, out, name).startswith("8 PNGs, each whole, of mode P")
    assert write_object_maps(predictions, out, name) == 8, "a second run replaces the first"


def test_a_folder_is_read_as_the_evaluation_reads_it(predictions: Predictions, tmp_path: Path) -> None:
    write_object_maps(predictions, Folder(str(tmp_path)), "maps")
    image = Image.open(tmp_path / "maps/anno_3/dogs-jump/00001.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), IDS[3, 1])
    assert bytes(image.getpalette() or [])[:9] == bytes([0, 0, 0, 128, 0, 0, 0, 128, 0])


def test_the_check_finds_missing_frames_and_strange_ids(predictions: Predictions, tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    write_object_maps(predictions, out, "maps")
    path = tmp_path / "maps/anno_2/dogs-jump/00001.png"
    path.write_bytes(encode_object_map(np.full((6, 9), 3)))
    with pytest.raises(ValueError, match=r"dogs-jump, annotator 2, frame 00001 holds object 3 of 2"):
        check_object_maps(predictions, out, "maps")
    path.unlink()
    with pytest.raises(ValueError, match=r"lacks frames of anno_2/dogs-jump\."):
        check_object_maps(predictions, out, "maps")


def test_a_video_without_merged_maps_is_told(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> None:
    folder = save({"v.parquet": [predict("v", str(k), blobs(), dataset="ref-davis17", annotator=k) for k in range(4)]})
    with pytest.raises(ValueError, match="v, annotator 0: 0 of 1 rows hold merged maps, but one must"):
        write_object_maps(read_predictions(folder), Folder(str(tmp_path)), "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"annotator": None}, "has annotator None"),
        ({"annotator": 0, "merged": (b"no image",) * 2}, r"merged map of anno_0/v/00000\.png is unusable"),
        ({"annotator": 0, "merged": (encode_object_map(np.zeros((9, 6), int)),) * 2}, r"height, width \(9, 6\), not"),
    ],
)
def test_unusable_rows_are_told(predict: Any, save: Any, blobs: Any, tmp_path: Path, values: Any, said: str) -> None:
    folder = save({"v.parquet": [predict("v", "0", blobs(), dataset="ref-davis17", **values)]})
    with pytest.raises(ValueError, match=said):
        write_object_maps(read_predictions(folder), Folder(str(tmp_path)), "a.zip")
