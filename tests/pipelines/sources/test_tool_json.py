import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, LayoutError
from pipelines.exports.youtube_vis import (
    write_coco_frames,
    write_coco_parts,
    write_youtube_vis,
    write_youtube_vis_parts,
)
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions
from pipelines.records import records_of, table_of
from tool_files import masks_of, opened, read_all, read_one, said, write_frames, write_json

WRITERS = {"coco": write_coco_frames, "youtube-vis": write_youtube_vis}
NAMELESS = '{"images": [{"id": 1}], "videos": [{"id": 1}], "annotations": []}'
PARTS = {"coco": write_coco_parts, "youtube-vis": write_youtube_vis_parts}


@pytest.fixture
def masks(blobs: Any) -> dict[tuple[str, str], np.ndarray]:
    found = {("a", "0"): blobs(3, seed=1), ("a", "1"): blobs(3, seed=2), ("day 1/b", "0"): blobs(2, 4, 5, seed=3)}
    found["a", "1"][1] = False
    return found


@pytest.fixture
def predictions(predict: Any, save: Any, masks: dict[tuple[str, str], np.ndarray], tmp_path: Path) -> Predictions:
    """Two sentences about one video, one of them about another too; the second loses its object in a frame."""
    write_frames(tmp_path / "frames", [f"a/{5 * frame:05d}.jpg" for frame in range(3)], (6, 9))
    write_frames(tmp_path / "frames", [f"day 1/b/{5 * frame:05d}.png" for frame in range(2)], (4, 5))
    return read_predictions(save({"v.parquet": [predict(*key, each, dataset="own") for key, each in masks.items()]}))


@pytest.mark.parametrize("dataset", WRITERS)
@pytest.mark.parametrize("in_parts", [False, True])
def test_our_own_exports_can_be_prepared(
    dataset: str, in_parts: bool, predictions: Predictions, masks: dict[tuple[str, str], np.ndarray], tmp_path: Path
) -> None:
    raw, out = tmp_path / "our.json", Folder(str(tmp_path))
    if in_parts:
        raw = raw.with_suffix("")
        PARTS[dataset](predictions, out, "our.json", most=1)  # a part for every video
        assert len(list(raw.iterdir())) == 2
    else:
        WRITERS[dataset](predictions, out, "our.json")
    readings = read_all(opened(dataset, raw, tmp_path / "frames"))
    assert [one.record.video for one in readings] == ["a", "day 1/b"]
    for reading in readings:
        record = reading.record
        assert not reading.dropped
        assert records_of(table_of([record])) == [record]
        expected = {id: mask for (video, id), mask in masks.items() if video == record.video}
        assert [one.id for one in record.expressions] == list(expected)
        assert [one.text for one in record.expressions] == [f"the {id}th thing" for id in expected]
        for place, mask in enumerate(expected.values()):
            assert record.expressions[place].object_ids == (record.objects[place].id,)
            np.testing.assert_array_equal(masks_of(record, place), mask)


@pytest.mark.parametrize("dataset", WRITERS)
def test_parts_may_name_images_beside_their_folder(dataset: str, predictions: Predictions, tmp_path: Path) -> None:
    PARTS[dataset](predictions, Folder(str(tmp_path)), "our.json", most=1)
    for name in ("a", "day 1"):
        (tmp_path / "frames" / name).rename(tmp_path / name)
    assert [one.record.video for one in read_all(opened(dataset, tmp_path / "our"))] == ["a", "day 1/b"]


@pytest.mark.parametrize("dataset", WRITERS)
def test_of_several_queries_of_an_expression_the_one_with_the_best_score_counts(
    dataset: str, predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    best, other = blobs(2, seed=1), blobs(2, seed=2)
    write_frames(tmp_path, ["v/00000.jpg", "v/00005.jpg"], (6, 9))
    run = read_predictions(save({"v.parquet": [predict("v", "0", best, other, dataset="a2d-sentences")]}))
    WRITERS[dataset](run, Folder(str(tmp_path)), "our.json")
    record = read_one(opened(dataset, tmp_path / "our.json")).record
    np.testing.assert_array_equal(masks_of(record), best)


@pytest.mark.parametrize("dataset", WRITERS)
def test_what_is_sent_to_workers_does_not_depend_on_where_the_data_lie(
    dataset: str, predictions: Predictions, tmp_path: Path
) -> None:
    WRITERS[dataset](predictions, Folder(str(tmp_path)), "our.json")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/our.json").write_bytes((tmp_path / "our.json").read_bytes())
    here, there = opened(dataset, tmp_path / "our.json"), opened(dataset, tmp_path / "elsewhere/our.json")
    assert here.items() == there.items()


@pytest.mark.parametrize(("dataset", "tool"), [("coco", "COCO JSON"), ("youtube-vis", "YouTube-VIS JSON")])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shapes": [], "imagePath": "a.jpg"}', "is not {tool}: {tool} has no key 'shapes'. Object missing required"),
        ("[1, 2]", "is not {tool}: Expected `object`, got `array`. Check --dataset"),
        ('{"images": [', "is no JSON, or cut short"),
        ("", "is no JSON, or cut short"),
        ('{"info": ' + "[" * 200_000, "is nested too deep to be {tool}"),
        ('{"annotations": ' + "[" * 200_000 + "]" * 200_000 + "}", "is nested too deep to be {tool}"),
        (
            NAMELESS,
            r"is not {tool}: .* required field `file_names?` - at `\$",
        ),
    ],
)
def test_a_file_of_another_layout_stops_everything(
    dataset: str, tool: str, content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(LayoutError, match=f"{path} {message.format(tool=tool)}"):
        opened(dataset, path).items()


@pytest.mark.parametrize("dataset", WRITERS)
def test_a_raw_that_is_missing_or_a_folder_without_json_is_named(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"{tmp_path}/a.json does not exist. Give the annotation file"):
        opened(dataset, tmp_path / "a.json").items()
    with pytest.raises(LayoutError, match=f"{tmp_path} holds no .json file"):
        opened(dataset, tmp_path).items()
    with pytest.raises(LayoutError, match=f"--frames {tmp_path}/images is no folder"):
        opened(dataset, tmp_path, tmp_path / "images").items()


def test_two_videos_of_one_name_in_two_files_are_refused(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "a cat", "segmentation": [[1, 1, 5, 1, 5, 5]]}],
    }
    for name in ("1.json", "2.json"):
        write_json(tmp_path / name, content)
    with pytest.raises(LayoutError, match=r"Two videos are called 'a', in 1.json and in 2.json"):
        opened("coco", tmp_path).items()


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    content = {"images": [], "annotations": []}
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert opened("coco", tmp_path / "a.json").items() == []


@pytest.mark.parametrize("dataset", WRITERS)
def test_frames_of_another_size_send_their_video_to_quarantine_with_both_sizes(
    dataset: str, predictions: Predictions, tmp_path: Path
) -> None:
    WRITERS[dataset](predictions, Folder(str(tmp_path)), "our.json")
    write_frames(tmp_path / "frames", [f"a/{5 * frame:05d}.jpg" for frame in range(3)], (12, 18))
    source = opened(dataset, tmp_path / "our.json", tmp_path / "frames")
    first, second = source.items()
    with pytest.raises(BadItem, match=f"{tmp_path}/our.json annotates 9x6 pixels, but a has 18x12"):
        source.read(first)
    assert said(source.read(second).record)
