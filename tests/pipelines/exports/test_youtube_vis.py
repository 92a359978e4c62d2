import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pipelines.exports.youtube_vis import (
    check_tracks,
    write_coco_frames,
    write_coco_parts,
    write_youtube_vis,
    write_youtube_vis_parts,
)
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions, read_predictions

# pycocotools decodes by an array interface that numpy has since changed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture
def masks(blobs: Any) -> dict[tuple[str, str], np.ndarray]:
    found = {("a", "0"): blobs(3, seed=1), ("a", "1"): blobs(3, seed=2), ("b", "0"): blobs(2, 4, 5, seed=3)}
    found["a", "1"][1] = False
    return found


@pytest.fixture
def predictions(predict: Any, save: Any, masks: dict[tuple[str, str], np.ndarray]) -> Predictions:
    """Two sentences about one video, one of them about another too; the second loses its object in a frame."""
    return read_predictions(save({"v.parquet": [predict(*key, each, dataset="own") for key, each in masks.items()]}))


def test_tracks_have_the_schema_of_youtube_vis(
    predictions: Predictions, masks: dict[tuple[str, str], np.ndarray], tmp_path: Path
) -> None:
    out = Folder(str(tmp_path))
    assert write_youtube_vis(predictions, out, "a.json") == 3
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["info"] == {"dataset": "own", "split": "valid", "fingerprint": "a checkpoint"}
    assert content["categories"] == [
        {"id": 1, "name": "the 0th thing", "supercategory": "object"},
        {"id": 2, "name": "the 1th thing", "supercategory": "object"},
    ]
    assert [(video["id"], video["width"], video["height"], video["length"]) for video in content["videos"]] == [
        (1, 9, 6, 3),
        (2, 5, 4, 2),
    ]
    assert content["videos"][1]["file_names"] == ["b/00000.jpg", "b/00005.jpg"]
    assert [(one["id"], one["video_id"], one["category_id"]) for one in content["annotations"]] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 1),
    ]
    for one in content["annotations"]:
        expected = masks[one["video"], one["expression"]]
        assert one["score"] == 0.75
        assert one["iscrowd"] == 0
        assert len(one["segmentations"]) == len(one["bboxes"]) == len(one["areas"]) == len(expected)
        for mask, segmentation, box, area in zip(
            expected, one["segmentations"], one["bboxes"], one["areas"], strict=True
        ):
            if segmentation is None:
                assert not mask.any()
                assert box is area is None
            else:
                np.testing.assert_array_equal(coco_mask.decode(segmentation), mask)
                np.testing.assert_allclose(coco_mask.toBbox(segmentation), box)
                assert area == mask.sum()
    assert content["annotations"][1]["segmentations"][1] is None
    assert check_tracks(predictions, out, "a.json").startswith("3 annotations of 3 expressions")


def test_segments_of_a_long_video_are_one_track(predict: Any, save: Any, blobs: Any, tmp_path: Path) -> None:
    masks = blobs(5)
    rows = [
        predict("v", "0", masks[:3], frame_names=("0", "1", "2")),
        predict("v", "0", masks[3:], frame_names=("3", "4"), segment=1, start_frame=3),
    ]
    predictions = read_predictions(save({"1.parquet": rows[1:], "2.parquet": rows[:1]}))
    assert write_youtube_vis(predictions, Folder(str(tmp_path)), "a.json") == 1
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["videos"][0]["file_names"] == [f"v/{number}.jpg" for number in range(5)]
    found = np.stack([coco_mask.decode(mask) for mask in content["annotations"][0]["segmentations"]])
    np.testing.assert_array_equal(found, masks)


def test_expressions_asked_at_different_frames_share_a_time_line(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    values = {"dataset": "a2d-sentences"}
    rows = [
        predict("v", "0", blobs(2), frame_names=("00011", "00033"), **values),
        predict("v", "1", blobs(1), frame_names=("00022",), **values),
    ]
    write_youtube_vis(read_predictions(save({"v.parquet": rows})), Folder(str(tmp_path)), "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["videos"][0]["file_names"] == ["v/00011.jpg", "v/00022.jpg", "v/00033.jpg"]
    shown = [[mask is not None for mask in one["segmentations"]] for one in content["annotations"]]
    assert shown == [[True, False, True], [False, True, False]]


def test_frames_load_as_a_coco_dataset(
    predictions: Predictions, masks: dict[tuple[str, str], np.ndarray], tmp_path: Path
) -> None:
    out = Folder(str(tmp_path))
    assert write_coco_frames(predictions, out, "a.json") == 7
    with contextlib.redirect_stdout(io.StringIO()):
        content = COCO(str(tmp_path / "a.json"))
    assert [image["file_name"] for image in content.loadImgs(content.getImgIds())] == [
        "a/00000.jpg",
        "a/00005.jpg",
        "a/00010.jpg",
        "b/00000.jpg",
        "b/00005.jpg",
    ]
    (image,) = [image for image in content.imgs.values() if image["file_name"] == "a/00010.jpg"]
    first, second = content.loadAnns(content.getAnnIds(imgIds=[image["id"]]))
    np.testing.assert_array_equal(content.annToMask(first), masks["a", "0"][2])
    np.testing.assert_array_equal(content.annToMask(second), masks["a", "1"][2])
    assert [category["name"] for category in content.loadCats(content.getCatIds())] == [
        "the 0th thing",
        "the 1th thing",
    ]
    assert check_tracks(predictions, out, "a.json").startswith("7 annotations of 3 expressions")


def test_the_check_finds_annotations_of_what_is_not_there(predictions: Predictions, tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    write_youtube_vis(predictions, out, "a.json")
    out.write("a.json", out.read("a.json").replace(b'"video_id":2', b'"video_id":3'))
    with pytest.raises(ValueError, match="annotation 3 refers to a video, image or category that is missing"):
        check_tracks(predictions, out, "a.json")


def test_videos_say_where_they_are_from_and_when_their_frames_are_shown(
    predict: Any, save: Any, blobs: Any, tmp_path: Path
) -> None:
    times = (0.0, 0.2, 0.4, 0.6, 1.2)
    source = "s3://KEY:SECRET@bucket/a.mp4?region=eu"
    rows = [
        predict("a", "0", blobs(3), frame_names=("0", "1", "2"), timestamps=times[:3], fps=9.0, source=source),
        predict(
            "a", "0", blobs(2), frame_names=("3", "4"), timestamps=times[3:], fps=9.0, segment=1, start_frame=3,
            source=source,
        ),
        predict("b", "0", blobs(2), frame_names=("0", "1"), timestamps=(0.0, 1 / 24), source="/images/b"),
        predict("c", "0", blobs(1), frame_names=("0",), timestamps=(0.5,), source="/c.mp4"),
        predict("d", "0", blobs(1), frame_names=("0",), source="/d"),
    ]  # fmt: skip
    out, predictions = Folder(str(tmp_path)), read_predictions(save({"v.parquet": rows}))
    write_youtube_vis(predictions, out, "tracks.json")
    videos = json.loads((tmp_path / "tracks.json").read_text())["videos"]
    assert [(one["source"], one["fps"], one["timestamps"]) for one in videos] == [
        ("s3://REDACTED@bucket/a.mp4?region=eu", pytest.approx(4 / 1.2), list(times)),
        ("/images/b", None, None),  # nothing tells when these images were taken
        ("/c.mp4", None, [0.5]),
        ("/d", None, None),
    ]
    write_coco_frames(predictions, out, "frames.json")
    images = json.loads((tmp_path / "frames.json").read_text())["images"]
    assert [one["timestamp"] for one in images] == [*times, None, None, 0.5, None]
    assert [one["video"] for one in images] == ["a"] * 5 + ["b"] * 2 + ["c", "d"]
    assert [one["source"] for one in images] == [one["source"] for one in videos for _ in range(one["length"])]


def test_videos_whose_frames_are_written_name_these_files(predictions: Predictions, tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    write_youtube_vis(predictions, out, "tracks.json", framed={"b"})
    write_coco_parts(predictions, out, "coco.json", framed={"b"})
    videos = json.loads((tmp_path / "tracks.json").read_text())["videos"]
    images = json.loads((tmp_path / "coco" / "00000.json").read_text())["images"]
    assert [one["file_names"][0] for one in videos] == ["a/00000.jpg", "frames/b/00000.jpg"]
    assert [one["file_name"] for one in images] == [name for one in videos for name in one["file_names"]]


@pytest.mark.parametrize("key", ["videos", "images"])
def test_parts_are_whole_in_themselves_and_the_single_file_together(
    predictions: Predictions, tmp_path: Path, key: str
) -> None:
    out = Folder(str(tmp_path))
    whole, parts = {
        "videos": (write_youtube_vis, write_youtube_vis_parts), "images": (write_coco_frames, write_coco_parts),
    }[key]  # fmt: skip
    count = whole(predictions, out, "one.json")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "00007.json").write_text("of a larger run")
    assert parts(predictions, out, "two.json", most=1) == count
    single = json.loads((tmp_path / "one.json").read_text())
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "two").iterdir())]
    assert len(found) == 2, "a video each"
    for name in (key, "annotations"):
        assert [line for part in found for line in part[name]] == single[name]
    assert [[text["id"] for text in part["categories"]] for part in found] == [[1, 2], [1]]
    assert all(part["info"] == single["info"] for part in found)
    for number in range(2):
        assert "every mask" in check_tracks(predictions, out, f"two/{number:05d}.json")
    parts(predictions, out, "three.json")
    assert json.loads((tmp_path / "three" / "00000.json").read_text()) == single
