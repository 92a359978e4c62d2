from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, LayoutError
from pipelines.sources.base import LeavesOut
from tool_files import (
    HEIGHT,
    WIDTH,
    compressed,
    masks_of,
    opened,
    polygon_mask,
    read_one,
    said,
    write_frames,
    write_json,
)

POLYGON = [1.5, 2, 12.25, 3, 9, 14.5]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def vis(folder: Path, annotations: list[dict[str, Any]], files: int = 3, **video: Any) -> Path:
    """Writes a video of some frames, and a file with these annotations of it."""
    names = [f"0a49/{5 * frame:05d}.jpg" for frame in range(files)]
    write_frames(folder, names)
    videos = [{"id": 1, "file_names": names, "width": WIDTH, "height": HEIGHT, "length": files, **video}]
    annotations = [{"id": 10 + place, "video_id": 1, **one} for place, one in enumerate(annotations)]
    content = {"info": {}, "licenses": [], "videos": videos, "annotations": annotations, "categories": CATEGORIES}
    return write_json(folder / "instances.json", content)


def test_a_file_of_another_tool_gives_its_masks_and_null_is_absence(tmp_path: Path) -> None:
    blob = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    tracks = [
        {"category_id": 1, "segmentations": [compressed(blob), None, [POLYGON]], "bboxes": [], "areas": []},
        {"category_id": 2, "segmentations": [None, None, compressed(blob)], "iscrowd": 1},
    ]
    reading = read_one(opened("youtube-vis", vis(tmp_path, tracks)))
    record = reading.record
    assert not reading.dropped
    assert (record.video, record.frame_names) == ("0a49", ("00000", "00005", "00010"))
    nothing = np.zeros_like(blob)
    np.testing.assert_array_equal(masks_of(record, 0), [blob, nothing, polygon_mask([POLYGON])])
    np.testing.assert_array_equal(masks_of(record, 1), [nothing, nothing, blob])
    assert said(record) == [("cat", (10,)), ("dog", (11,))]
    assert [track.iscrowd for track in record.objects] == [False, True]


def test_sentences_of_annotations_come_before_their_category(tmp_path: Path) -> None:
    tracks = [
        {"category_id": 1, "segmentations": [[POLYGON]] * 3, "caption": "the black cat"},
        {"category_id": 1, "segmentations": [[POLYGON]] * 3, "attributes": {"expression": ["a cat", "the black cat"]}},
    ]
    record = read_one(opened("youtube-vis", vis(tmp_path, tracks))).record
    assert said(record) == [("the black cat", (10, 11)), ("a cat", (11,))]


def test_times_of_frames_are_kept(tmp_path: Path) -> None:
    tracks = [{"category_id": 1, "segmentations": [[POLYGON]] * 3}]
    path = vis(tmp_path, tracks, fps=6.0, timestamps=[0, 0.5, 1], name="film")
    record = read_one(opened("youtube-vis", path)).record
    assert (record.video, record.fps, record.timestamps) == ("film", 6, (0, 0.5, 1))


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"segmentations": [None]}, r"annotations\[0\] has 1 segmentations for 3 frames"),
        ({"segmentations": None}, r"annotations\[0\]: Expected `array`, got `null` - at `\$.segmentations`"),
        ({}, r"annotations\[0\]: Object missing required field `segmentations`"),
        (
            {"segmentations": [[[1, 2]], None, None]},
            "object 10, frame 00000: its polygon .* is not at least three corners",
        ),
        (
            {"segmentations": [{"size": [9, 9], "counts": "i2"}, None, None]},
            r".*: its RLE has size \[9, 9\], but",
        ),
    ],
)
def test_a_bad_annotation_sends_its_video_to_quarantine(spoiled: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadItem, match=f"0a49: {tmp_path}/instances.json: {message}"):
        read_one(opened("youtube-vis", vis(tmp_path, [{"category_id": 1, **spoiled}])))


def test_a_video_without_frames_or_with_missing_ones_is_quarantined(tmp_path: Path) -> None:
    with pytest.raises(BadItem, match="no frame is listed for it"):
        read_one(opened("youtube-vis", vis(tmp_path, [{"category_id": 1, "segmentations": []}], files=0)))
    path = vis(tmp_path, [{"category_id": 1, "segmentations": [[POLYGON]] * 3}])
    (tmp_path / "0a49/00005.jpg").unlink()
    with pytest.raises(BadItem, match=f"{tmp_path}/0a49/00005.jpg does not exist"):
        read_one(opened("youtube-vis", path))


def test_what_belongs_to_no_video_is_counted(tmp_path: Path) -> None:
    source = opened("youtube-vis", vis(tmp_path, [{"video_id": 2, "segmentations": []}, {"video_id": {}}]))
    assert source.items() == []
    assert isinstance(source, LeavesOut)
    assert [one.reason for one in source.left_out()] == [
        "annotation of no video",
        "annotation of no video",
        "video without annotation",
    ]


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    videos = [{"id": id, "file_names": ["v/1.jpg"]} for id in (1, 2)]
    path = write_json(tmp_path / "a.json", {"videos": videos, "annotations": []})
    with pytest.raises(LayoutError, match="two videos have one id or one name"):
        opened("youtube-vis", path).items()
