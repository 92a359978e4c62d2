import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.exports import ref_sav
from pipelines.exports.ref_sav import check_ref_sav, places_of_results, write_ref_sav
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from sgmg.masks import rle_to_mask


def test_masks_are_listed_by_video_and_expression(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> None:
    masks = {("b", "0"): blobs(seed=1), ('a"', "1"): blobs(3, 5, 4, seed=2), ('a"', "0"): blobs(3, 5, 4, seed=3)}
    predictions = read_predictions(save({"0.parquet": [predict(*key, some) for key, some in masks.items()]}))
    out = Folder(str(tmp_path))
    assert write_ref_sav(predictions, out, "a.json") == 3
    found = json.loads((tmp_path / "a.json").read_text())
    assert {(video, id) for video, some in found.items() for id in some} == masks.keys()
    for (video, id), mask in masks.items():
        rles = found[video][id]["prediction_masks"]
        assert rles[0]["size"] == list(mask.shape[1:])
        np.testing.assert_array_equal([rle_to_mask(one["counts"], mask.shape[1:]) for one in rles], mask)
    said = check_ref_sav(predictions, out, "a.json")
    assert said == "3 expressions, each with a whole mask for every frame, of its video's size"
    del found["b"]
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"a.json lacks or should not hold b 0"):
        check_ref_sav(predictions, out, "a.json")


@pytest.fixture
def written(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> Predictions:
    """Predictions of one sentence in two frames of height, width (5, 4), and their file, a.json."""
    predictions = read_predictions(save({"0.parquet": [predict("v", "0", blobs(2, 5, 4))]}))
    write_ref_sav(predictions, Folder(str(tmp_path)), "a.json")
    return predictions


EMPTY = {"size": [5, 4], "counts": "d0"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"a\.json, byte 1, is cut short or holds no results of Ref-SAV"),
        ({"v": {"0": [EMPTY, EMPTY]}}, "byte 13, is cut short or holds no results"),
        ({"v": 0}, "holds no results"),
        ({"v": {"0": None}}, "holds no results"),
        ({"v": {"1": {}}}, "lacks or should not hold v 0"),
        ({"v": {"0": {"prediction_masks": None}}}, "v, expression 0: it holds no list 'prediction_masks' for 2 frames"),
        ({"v": {"0": {"prediction_masks": [EMPTY]}}}, "it holds 1 masks for 2 frames"),
        ({"v": {"0": {"prediction_masks": [EMPTY, None]}}}, "mask 1 is None, not an RLE"),
        ({"v": {"0": {"prediction_masks": [EMPTY, {"size": [5, 4], "counts": [20]}]}}}, "not an RLE with size"),
        ({"v": {"0": {"prediction_masks": [EMPTY, {"counts": "d0"}]}}}, r"height, width None, not \(5, 4\)"),
        ({"v": {"0": {"prediction_masks": [EMPTY, EMPTY | {"size": [4, 5]}]}}}, r"width \[4, 5\], not \(5, 4\)"),
        ({"v": {"0": {"prediction_masks": [EMPTY, EMPTY | {"counts": "d"}]}}}, "RLE 'd' holds"),
    ],
)
def test_odd_content_is_an_error_that_names_it(
    written: Predictions, tmp_path: Path, content: Any, message: str
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        check_ref_sav(written, Folder(str(tmp_path)), "a.json")


def test_a_file_that_is_cut_anywhere_is_refused(written: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    whole = path.read_bytes().rstrip()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is cut short or holds no results of Ref-SAV"):
            check_ref_sav(written, Folder(str(tmp_path)), "a.json")
    path.write_bytes(whole + b"}")
    with pytest.raises(ValueError, match="holds no results"):
        check_ref_sav(written, Folder(str(tmp_path)), "a.json")


@pytest.mark.parametrize("text", ['{"v": {"0": {}, "0": {}}}', '{"v": {"0": {}}, "\\u0076": {"1": {}}}'])
def test_a_name_that_is_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json holds v( 0)? twice"):
        places_of_results(Folder(str(tmp_path)), "a.json")


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000])
def test_results_are_found_wherever_the_pieces_that_are_read_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, piece: int
) -> None:
    content = {'a"\\': {"{[é": {"x": ["\\", '"]']}, "1": {}}, "b": {}, "c": {"\\\\": {"y": [{"z": "}"}]}}}
    text = json.dumps(content, ensure_ascii=False).encode()
    (tmp_path / "a.json").write_bytes(text)
    monkeypatch.setattr(ref_sav, "_PIECE", piece)
    places = places_of_results(Folder(str(tmp_path)), "a.json")
    parts = {video: {id: text[slice(*place)] for id, place in some.items()} for video, some in places.items()}
    found = {video: {id: json.loads(part) for id, part in some.items()} for video, some in parts.items()}
    assert found == {video: some for video, some in content.items() if some}
