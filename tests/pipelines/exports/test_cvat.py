"""CVAT's XML: read as CVAT's import reads it, it gives the masks of the predictions, pixel by pixel."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipelines.exports.cvat import LABEL_LETTERS, cvat_rle, write_cvat
from pipelines.files import Folder
from pipelines.predictions import Prediction
from sgmg.masks import rles_to_masks

Predict = Callable[..., Prediction]
SIZE = (6, 9)


def xml_of(tmp_path: Path, *segments: Sequence[Prediction]) -> ElementTree.Element:
    write_cvat(Folder(str(tmp_path)), "cvat/v.xml", "v", segments)
    return ElementTree.parse(tmp_path / "cvat" / "v.xml").getroot()


def mask_of(shape: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    """A mask as CVAT decodes it: runs of zeros and ones by turns, row by row within the box."""
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    left, top, width, height = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = pixels
    return mask


def imported(root: ElementTree.Element) -> dict[tuple[str, int], np.ndarray]:
    """The masks by sentence and frame, as CVAT imports them: of each track the first shape."""
    size = (int(root.findtext(".//original_size/height") or 0), int(root.findtext(".//original_size/width") or 0))
    found = {}
    for track in root.findall("track"):
        shape = track[0]
        assert (shape.attrib["keyframe"], shape.attrib["outside"]) == ("1", "0")
        sentence, id = shape
        assert (sentence.attrib["name"], id.attrib["name"]) == ("expression", "expression_id")
        key = (sentence.text or "", int(shape.attrib["frame"]))
        assert key not in found
        found[key] = mask_of(shape, size)
    return found


def test_the_masks_of_all_segments_come_back_pixel_by_pixel(predict: Predict, blobs: Any, tmp_path: Path) -> None:
    masks = {text: blobs(5, *SIZE, seed=seed) for seed, text in enumerate(("the dog", "the red ball"))}
    masks["the dog"][[1, 4]] = False
    masks["the red ball"][0] = True
    segments = [
        [
            predict("v", id, each[part], text=text, frame_names=names, start_frame=part.start)
            for id, (text, each) in zip(("2", "10"), masks.items(), strict=True)
        ]
        for part, names in ((slice(0, 3), ("00000", "00004", "00008")), (slice(3, 5), ("00012", "00016")))
    ]
    root = xml_of(tmp_path, *segments)
    found = imported(root)
    for text, each in masks.items():
        for frame, mask in enumerate(each):
            np.testing.assert_array_equal(found.get((text, frame), np.zeros(SIZE, np.bool_)), mask)
    assert len(found) == 8 == len({track.attrib["id"] for track in root.findall("track")})
    assert {(track.attrib["label"], track.attrib["group_id"]) for track in root.findall("track")} == {
        ("the dog", "1"), ("the red ball", "2"),
    }  # fmt: skip


def test_a_track_ends_in_the_frame_after_its_mask_unless_that_is_the_last(
    predict: Predict, blobs: Any, tmp_path: Path
) -> None:
    tracks = xml_of(tmp_path, [predict("v", "0", blobs(2))], [predict("v", "0", blobs(1), frame_names=("z",))])
    ends = [[(one.attrib["frame"], one.attrib["outside"]) for one in track] for track in tracks.findall("track")]
    assert ends == [[("0", "0"), ("1", "1")], [("1", "0"), ("2", "1")], [("2", "0")]]
    assert all(len(one.attrib["rle"].split(",")) >= 1 for track in tracks.findall("track") for one in track)


def test_the_task_has_its_size_its_labels_and_no_credentials(predict: Predict, blobs: Any, tmp_path: Path) -> None:
    rows = [
        predict("v", "0", blobs(3), text="the dog", source="s3://KEY:SECRET@bucket/v.mp4"),
        predict("v", "1", blobs(3) & False, text="a cat"),
    ]
    root = xml_of(tmp_path, rows)
    task = {name: root.findtext(f"meta/task/{name}") for name in ("name", "size", "mode", "stop_frame", "source")}
    assert task == {
        "name": "v", "size": "3", "mode": "interpolation", "stop_frame": "2", "source": "s3://REDACTED@bucket/v.mp4",
    }  # fmt: skip
    assert root.findtext("version") == "1.1"
    assert [root.findtext(f".//original_size/{side}") for side in ("width", "height")] == ["9", "6"]
    labels = {one.findtext("name"): [it.text for it in one.iter("default_value")] for one in root.iter("label")}
    assert labels == {"the dog": ["the dog", "0"], "a cat": ["a cat", "1"]}
    assert len(root.findall("track")) == 3, "nothing of the cat, which is nowhere"


@pytest.mark.parametrize("text", ["a & b < c > 'd' \"e\"", "  two\nlines\r\nand\ta tab ", "ünder 中文 🐕", "]]>&#0;"])
def test_a_sentence_of_any_letters_comes_back(predict: Predict, blobs: Any, tmp_path: Path, text: str) -> None:
    assert {sentence for sentence, _ in imported(xml_of(tmp_path, [predict("v", "0", blobs(1), text=text)]))} == {text}


def test_letters_that_xml_cannot_hold_are_replaced(predict: Predict, blobs: Any, tmp_path: Path) -> None:
    root = xml_of(tmp_path, [predict("v", "0", blobs(1), text="a\x00b\x1f\ufffe")])
    assert {sentence for sentence, _ in imported(root)} == {"a\ufffdb\ufffd\ufffd"}


def test_labels_are_short_and_differ_where_the_sentences_do(predict: Predict, blobs: Any, tmp_path: Path) -> None:
    sentences = [f"{'very ' * 30}long {number}" for number in range(12)]
    rows = [predict("v", str(number), blobs(1), text=text) for number, text in enumerate(sentences)]
    root = xml_of(tmp_path, rows)
    labels = [label.findtext("name") or "" for label in root.iter("label")]
    assert len(set(labels)) == 12
    assert max(map(len, labels)) <= LABEL_LETTERS
    assert {track.attrib["label"] for track in root.findall("track")} == set(labels)
    assert {sentence for sentence, _ in imported(root)} == set(sentences)


def test_runs_begin_with_zeros_and_hold_every_small_mask() -> None:
    for bits in itertools.product([False, True], repeat=6):
        mask = np.array(bits).reshape(2, 3)
        runs = cvat_rle(mask)
        assert sum(runs) == 6
        np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(2, 3), mask)
        assert all(runs[1:])


def test_rows_that_lack_frames_of_each_other_agree_on_the_numbers_of_frames(
    predict: Predict, blobs: Any, tmp_path: Path
) -> None:
    masks = blobs(2, *SIZE)
    rows = [
        predict("v", "0", masks, text="it", frame_names=("2", "10")),
        predict("v", "1", blobs(3), text="all", frame_names=("2", "9", "10")),
    ]
    found = imported(xml_of(tmp_path, rows))
    assert sorted(frame for text, frame in found if text == "it") == [0, 2]
    expected = rles_to_masks(rows[0].queries[0].rle, SIZE)
    np.testing.assert_array_equal(found["it", 2], expected[1])


def test_a_video_without_predictions_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="v has no predictions"):
        write_cvat(Folder(str(tmp_path)), "v.xml", "v", [])
    assert list(tmp_path.iterdir()) == []
