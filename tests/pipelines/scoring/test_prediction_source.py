"""Submissions hold the masks of the predictions that they were made of, whoever zipped them and however."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exports.mask_zip import MEVIS_ROOT, YTVOS_ROOT, write_mask_zip
from pipelines.exports.ref_sav import write_ref_sav
from pipelines.exports.vots import write_vots
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.records import Expression, ObjectTrack
from pipelines.scoring.prediction_source import PredictionSource, open_submission
from pipelines.scoring.result_files import open_ref_sav, open_vots
from pipelines.scoring.score import score_video
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.vots import result_name
from sgmg.masks import masks_to_rles, rles_to_masks

T, SIZE = 3, (6, 9)
NAMES = ("00000", "00005", "00010")
TEXTS = ("a dog", "it")

Found = dict[tuple[str, str], tuple[str, ...]]


@pytest.fixture
def said(predict: Any, save: Any, blobs: Callable[..., np.ndarray]) -> Callable[..., Predictions]:
    """Predictions of two sentences for each of some videos; one mask of each video is empty."""

    def made(dataset: str, *videos: str) -> Predictions:
        rows = []
        for seed, video in enumerate(videos):
            masks = blobs(T, *SIZE, seed=seed)
            masks[1] = False
            rows += [
                predict(video, "0", masks, dataset=dataset, external_id=result_name(video, TEXTS[0])),
                predict(video, "1", ~masks, dataset=dataset, external_id=result_name(video, TEXTS[1])),
            ]
        return read_predictions(save({"0.parquet": rows}))

    return made


def truth_of(dataset: str, video: str) -> VideoTruth:
    """Two sentences about one object, which is not annotated in the last frame."""
    masks = np.zeros((2, *SIZE), dtype=np.bool_)
    masks[:, 1:4, 2:6] = True
    expressions = tuple(
        Expression(str(number), text, (1,), external_id=result_name(video, text)) for number, text in enumerate(TEXTS)
    )
    track = ObjectTrack(1, (*masks_to_rles(masks), None))
    return VideoTruth(dataset, "valid", video, SIZE, NAMES, {1: track}, expressions)


def masks_of(source: PredictionSource, *truths: VideoTruth) -> Found:
    rows = source.only([truth.video for truth in truths]).read(truths)
    return {(row.video, row.expression): row.queries[0].rle for row in rows}


def wanted(predictions: Predictions) -> Found:
    return {(row.video, row.expression): row.queries[0].rle for row in predictions}


def zipped(path: Path, entries: Mapping[str, str | bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return str(path)


@pytest.mark.parametrize("root", [YTVOS_ROOT, MEVIS_ROOT])
@pytest.mark.parametrize("outer", ["", "my results/"])
def test_a_name_of_a_video_may_hold_folders(said: Any, tmp_path: Path, root: str, outer: str) -> None:
    predictions = said("revos", "A/x", "B/x", "x")
    write_mask_zip(predictions, Folder(str(tmp_path)), "a.zip", root)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        path = zipped(tmp_path / "b.zip", {f"{outer}{name}": archive.read(name) for name in archive.namelist()})
    truths = [truth_of("revos", video) for video in ("A/x", "B/x", "x")]
    source = open_submission(path, davis=False, known={truth.video for truth in truths})
    assert source.videos == {"A/x", "B/x", "x"}
    assert masks_of(source, *truths) == wanted(predictions)


def test_a_video_that_the_truth_does_not_know_keeps_the_name_of_its_folder(said: Any, tmp_path: Path) -> None:
    write_mask_zip(said("revos", "A/x", "B/x"), Folder(str(tmp_path)), "a.zip", YTVOS_ROOT)
    assert open_submission(str(tmp_path / "a.zip"), davis=False, known={"A/x"}).videos == {"A/x", "B/x"}


def test_two_folders_of_one_video_are_not_merged(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"first/v/0/00000.png": b"", "second/v/1/00000.png": b""})
    with pytest.raises(ValueError, match=r"holds first/v/ and second/v/, which are of one video"):
        open_submission(path, davis=False, known={"v"})


@pytest.mark.parametrize("unpacked", [True, False])
def test_results_of_vots_score_as_the_predictions_they_were_made_of(said: Any, tmp_path: Path, unpacked: bool) -> None:
    predictions = said("vots", "cart", "dog")
    write_vots(predictions, Folder(str(tmp_path)), "a.zip")
    if unpacked:
        zipfile.ZipFile(tmp_path / "a.zip").extractall(tmp_path / "unpacked/tracker")
    truths = [truth_of("vots", video) for video in ("cart", "dog")]
    source = open_vots(str(tmp_path / ("unpacked" if unpacked else "a.zip")), {"cart", "dog"})
    assert source.videos == {"cart", "dog"}
    assert masks_of(source, *truths) == wanted(predictions)
    for truth in truths:
        own = [row for row in predictions if row.video == truth.video]
        assert score_video(truth, source.read([truth])) == score_video(truth, own)


def test_what_the_toolkit_writes_beside_the_masks_is_left_out(tmp_path: Path) -> None:
    stem = f"baseline/cart/{result_name('cart', TEXTS[0])}"
    lines = "0\nm0,0,9,6,0,2\r\n"  # the runs of zeros at the end are left out, as some writers do
    entries = {"manifest.yml": "", f"{stem}.txt": lines, f"{stem}_time.value": "1", "baseline/cart/cart_0.txt": "?"}
    source = open_vots(zipped(tmp_path / "a.zip", entries), {"cart"})
    (row,) = source.read([truth_of("vots", "cart")])
    masks = rles_to_masks(row.queries[0].rle, SIZE)
    assert (row.expression, row.frame_names) == ("0", NAMES[:2])
    assert masks.sum(axis=(1, 2)).tolist() == [0, 2]
    assert masks[1, 0, :2].all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0\n0\n0\n0\n", r"cart_\w+\.txt has 4 lines for 3 frames"),
        ("", "has 0 lines for 3 frames"),
        ("0\nm1,1,9,9,0,81\n0\n", "line 2: the mask of 9x9 pixels at 1, 1 leaves its frame of 9x6"),
        ("0\n0\nnan\n", "line 3: 'nan' is no mask"),
    ],
)
def test_a_damaged_line_of_vots_is_named(tmp_path: Path, lines: str, message: str) -> None:
    path = zipped(tmp_path / "a.zip", {f"baseline/cart/{result_name('cart', TEXTS[0])}.txt": lines})
    with pytest.raises(ValueError, match=message):
        open_vots(path, {"cart"}).read([truth_of("vots", "cart")])


def test_a_zip_without_results_of_vots_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.zip holds v/0/00000\.png, but results of this benchmark are <video>/"):
        open_vots(zipped(tmp_path / "a.zip", {"v/0/00000.png": b""}), {"v"})


def as_written(text: str) -> str:
    return text


def in_one_line(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"))


def indented(text: str) -> str:
    return json.dumps(json.loads(text), indent="\t", ensure_ascii=False).replace("\n", "\r\n")


@pytest.mark.parametrize("written", [as_written, in_one_line, indented])
def test_results_of_ref_sav_score_as_the_predictions_they_were_made_of(
    said: Any, tmp_path: Path, written: Callable[[str], str]
) -> None:
    videos = ('é "{[', "sav_1")
    predictions, path = said("ref-sav", *videos), tmp_path / "a.json"
    write_ref_sav(predictions, Folder(str(tmp_path)), "a.json")
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
    truths, source = [truth_of("ref-sav", video) for video in videos], open_ref_sav(str(path))
    assert source.videos == set(videos)
    assert masks_of(source, *truths) == wanted(predictions)
    assert masks_of(source, truths[1]) == {key: rle for key, rle in wanted(predictions).items() if key[0] == "sav_1"}
    for truth in truths:
        own = [row for row in predictions if row.video == truth.video]
        assert score_video(truth, source.read([truth])) == score_video(truth, own)


def test_masks_of_ref_sav_at_another_size_are_named(said: Any, tmp_path: Path) -> None:
    write_ref_sav(said("ref-sav", "v"), Folder(str(tmp_path)), "a.json")
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace("[6, 9]", "[9, 6]"))
    with pytest.raises(
        ValueError, match=r"a\.json, v, expression 0: mask 0 is of height, width \[9, 6\], not \(6, 9\)"
    ):
        open_ref_sav(str(tmp_path / "a.json")).read([truth_of("ref-sav", "v")])
