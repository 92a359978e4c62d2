import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exports.vots import check_vots, write_vots
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.sources.vots import decode_region


@pytest.fixture
def masks(blobs: Any) -> np.ndarray:
    found = blobs(3, 5, 4, seed=1)
    found[1] = False
    return found


@pytest.fixture
def predictions(predict: Any, save: Any, masks: np.ndarray) -> Predictions:
    row = predict("cart", "0", masks, external_id="cart_b2654d24")
    return read_predictions(save({"0.parquet": [row]}))


def test_a_zip_has_a_line_for_every_frame_and_says_who_made_it(
    predictions: Predictions, masks: np.ndarray, tmp_path: Path
) -> None:
    out = Folder(str(tmp_path))
    assert write_vots(predictions, out, "a.zip", "MyTracker") == 1
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["baseline/cart/cart_b2654d24.txt", "manifest.yml"]
        lines = archive.read("baseline/cart/cart_b2654d24.txt").decode().split("\n")
        manifest = json.loads(archive.read("manifest.yml"))
    assert lines[1] == "0"
    assert lines[3:] == [""]
    for frame in (0, 2):
        np.testing.assert_array_equal(decode_region(lines[frame], (5, 4)), masks[frame])
    assert (manifest["identifier"], manifest["stack"]) == ("MyTracker", "vots2026/referral")
    assert check_vots(predictions, out, "a.zip") == "1 files, each with a line for every frame of its sequence"
    write_vots(predictions, out, "b.zip", "MyTracker")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"manifest.yml": "{}"}, "lacks or should not hold baseline/cart/cart_b2654d24.txt"),
        ({"manifest.yml": "{}", "baseline/cart/cart_b2654d24.txt": "0\n0\n"}, "has 2 lines for 3 frames"),
        ({"manifest.yml": "{}", "baseline/cart/cart_b2654d24.txt": "0\nm1,1,9,9,0,81\n0\n"}, "line 2: the mask of 9x9"),
    ],
)
def test_the_check_finds_what_is_missing_or_does_not_fit(
    predictions: Predictions, tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    with pytest.raises(ValueError, match=message):
        check_vots(predictions, Folder(str(tmp_path)), "a.zip")


def test_a_damaged_prediction_is_named(predict: Any, save: Any, masks: np.ndarray, tmp_path: Path) -> None:
    row = predict("cart", "0", masks, external_id="cart_b2654d24")
    track = replace(row.queries[0], rle=("0", *row.queries[0].rle[1:]))
    damaged = read_predictions(save({"0.parquet": [replace(row, queries=(track,))]}))
    with pytest.raises(ValueError, match=r"prediction of baseline/cart/cart_b2654d24.txt is damaged"):
        write_vots(damaged, Folder(str(tmp_path)), "a.zip")
    assert not (tmp_path / "a.zip").exists()
