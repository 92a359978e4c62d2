import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patience import PATIENCE
from pipelines.exports.mask_zip import MEVIS_ROOT, YTVOS_ROOT, check_mask_zip, write_mask_zip
from pipelines.exports.submission import read_submission
from pipelines.files import Folder
from pipelines.prediction_reader import read_predictions


@pytest.mark.parametrize("root", [YTVOS_ROOT, MEVIS_ROOT])
def test_a_zip_holds_the_masks_of_the_chosen_query_pixel_by_pixel(
    predict: Any, save: Any, blobs: Any, tmp_path: Path, root: str
) -> None:
    masks = {("b", "0"): blobs(seed=1), ("a", "10"): blobs(3, 5, 4, seed=2), ("a", "2"): blobs(3, 5, 4, seed=3)}
    unwanted = {video: blobs(*masks[video, expression].shape, seed=9) for video, expression in masks}
    rows = [predict(*key, masks[key], unwanted[key[0]]) for key in masks]
    predictions, out = read_predictions(save({"0.parquet": rows})), Folder(str(tmp_path))
    assert write_mask_zip(predictions, out, "a.zip", root) == 8
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [
            f"{root}{name}.png"
            for video, frames in (("a/2", 3), ("a/10", 3), ("b/0", 2))
            for name in (f"{video}/{5 * number:05d}" for number in range(frames))
        ]
        with archive.open(f"{root}a/2/00010.png") as stream, Image.open(stream) as image:
            assert (image.mode, image.size) == ("L", (4, 5))
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for one in read_submission(tmp_path / "a.zip"):
        found.setdefault((one.video, one.expression), []).append(one.mask)
    assert found.keys() == masks.keys()
    for key, each in masks.items():
        np.testing.assert_array_equal(np.stack(found[key]), each)
    assert check_mask_zip(predictions, out, "a.zip", root).startswith("8 PNGs, each whole, of mode L")


def test_the_same_predictions_give_the_same_bytes_however_they_are_filed(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    rows = [predict(video, expression, blobs()) for video in "ab" for expression in "01"]
    folder, out = save({"x.parquet": rows}), Folder(str(tmp_path))
    write_mask_zip(read_predictions(folder), out, "one.zip")
    folder.folder("predictions").remove("x.parquet")
    save({f"{number}.parquet": [row] for number, row in enumerate(reversed(rows))})
    write_mask_zip(read_predictions(folder), out, "other.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_the_check_finds_what_is_missing_strange_or_of_another_size(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    predictions = read_predictions(save({"v.parquet": [predict("v", "0", blobs())]}))
    fewer = replace(predictions, entries=(replace(predictions.entries[0], frame_names=("00000",)),))
    larger = replace(predictions, entries=(replace(predictions.entries[0], size=(9, 6)),))
    out = Folder(str(tmp_path))
    write_mask_zip(predictions, out, "a.zip")
    with pytest.raises(ValueError, match=r"holds Annotations/v/0/00005\.png instead of nothing"):
        check_mask_zip(fewer, out, "a.zip")
    with pytest.raises(ValueError, match=r"height, width \(6, 9\), but \(9, 6\)"):
        check_mask_zip(larger, out, "a.zip")
    with pytest.raises(ValueError, match=r"holds Annotations/v/0/00000\.png instead of v/0/00000\.png"):
        check_mask_zip(predictions, out, "a.zip", MEVIS_ROOT)


def test_a_damaged_mask_stops_the_writing_and_leaves_no_zip(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    good = predict("v", "0", blobs(6))
    (track,) = good.queries
    spoilt = replace(good, queries=(replace(track, rle=(*track.rle[:5], "zzz")),))
    predictions = read_predictions(save({"v.parquet": [spoilt]}))
    with pytest.raises(ValueError, match=r"The prediction of Annotations/v/0/00025\.png is damaged: RLE 'zzz'"):
        write_mask_zip(predictions, Folder(str(tmp_path)), "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


_PEAKS = """
import json, sys, tracemalloc
from dataclasses import replace
from pipelines.exports.mask_zip import write_mask_zip
from pipelines.files import Folder
from pipelines.prediction_reader import read_predictions
predictions, peaks = read_predictions(Folder(sys.argv[1])), []
for videos in (10, 110):
    tracemalloc.start()
    write_mask_zip(replace(predictions, entries=predictions.entries[:videos]), Folder(sys.argv[2]), "a.zip")
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
print(json.dumps(peaks))
"""
"""Run in a process of its own: what is traced is all threads' memory, and the tests' process has those of Ray."""


@pytest.mark.slow
def test_thousands_of_pngs_never_sit_in_memory_together(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> None:
    masks = blobs(20, 140, 140)
    folder = save({f"{number:03d}.parquet": [predict(f"{number:03d}", "0", masks)] for number in range(110)})
    words = [sys.executable, "-c", _PEAKS, folder.uri, str(tmp_path)]
    few, many = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout)
    of_a_png = (tmp_path / "a.zip").stat().st_size / 2200
    assert of_a_png > 2500
    assert (many - few) / 2000 < 1000, "bytes that another PNG costs: its place in the zip's directory"
