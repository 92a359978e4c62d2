from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.sources.base import LeavesOut, Reading
from sgmg.masks import rle_area
from tool_files import (
    HEIGHT,
    WIDTH,
    coco_counts,
    compressed,
    masks_of,
    opened,
    polygon_mask,
    read_all,
    read_one,
    said,
    write_frames,
    write_json,
)

POLYGONS = [[1.5, 2, 12.25, 3, 9, 14.5], [20, 4, 28, 4, 28, 12.5, 20.75, 12]]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.fixture
def blob() -> np.ndarray:
    return np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4


def coco(folder: Path, files: list[str], annotations: list[dict[str, Any]], **values: Any) -> Path:
    """Writes images, and a file that lists them; `values` by the names of keys, those of images as lists."""
    write_frames(folder, files)
    of_images = {key: listed for key, listed in values.items() if key not in ("videos", "categories")}
    images = [
        {"id": id, "file_name": name, "width": WIDTH, "height": HEIGHT}
        | {key: listed[id] for key, listed in of_images.items()}
        for id, name in enumerate(files)
    ]
    annotations = [{"id": 100 + place, **one} for place, one in enumerate(annotations)]
    rest = {"categories": values.get("categories", CATEGORIES), "videos": values.get("videos", [])}
    return write_json(folder / "coco.json", {"images": images, "annotations": annotations, **rest})


def read_image(folder: Path, *annotations: dict[str, Any]) -> Reading:
    return read_one(opened("coco", coco(folder, ["a.jpg"], [{"image_id": 0} | one for one in annotations])))


def test_polygons_and_both_kinds_of_rle_give_the_masks_of_pycocotools(blob: np.ndarray, tmp_path: Path) -> None:
    plain = {"size": [HEIGHT, WIDTH], "counts": coco_counts(~blob)}
    kinds = [(POLYGONS, polygon_mask(POLYGONS)), (plain, ~blob), (compressed(blob), blob)]
    reading = read_image(
        tmp_path, *({"category_id": 1, "caption": str(n), "segmentation": one} for n, (one, _) in enumerate(kinds))
    )
    assert not reading.dropped
    assert said(reading.record) == [("0", (100,)), ("1", (101,)), ("2", (102,))]
    for place, (_, expected) in enumerate(kinds):
        np.testing.assert_array_equal(masks_of(reading.record, place), [expected])
    assert reading.record.frame_names == ("a",)
    assert reading.record.frames == ((tmp_path / "a.jpg").read_bytes(),)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"caption": "a black cat"}, ["a black cat"]),
        ({"expression": "a black cat"}, ["a black cat"]),
        ({"text": "a", "sentence": "b"}, ["a", "b"]),
        ({"attributes": {"expression": ["a", "b", " "], "occluded": False}}, ["a", "b"]),
        ({"attributes": {"sentence": "a"}, "caption": ""}, ["a"]),
        ({"attributes": [1]}, ["cat"]),
        ({}, ["cat"]),
    ],
)
def test_the_sentence_is_that_of_the_annotation_or_its_attributes_or_else_the_category(
    values: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    reading = read_image(tmp_path, {"category_id": 1, "segmentation": POLYGONS, **values})
    assert [text for text, _ in said(reading.record)] == expected
    assert reading.record.objects[0].category == "cat"


def test_objects_of_one_sentence_are_asked_for_together_but_crowds_apart(tmp_path: Path) -> None:
    one = {"category_id": 1, "segmentation": POLYGONS}
    record = read_image(tmp_path, one, one, one | {"iscrowd": 1}, one | {"category_id": 2}).record
    assert said(record) == [("cat", (100, 101)), ("cat", (102,)), ("dog", (103,))]
    assert [track.iscrowd for track in record.objects] == [False, False, True, False]


def test_images_of_one_video_id_are_a_video_in_the_order_of_their_frame_id(blob: np.ndarray, tmp_path: Path) -> None:
    files = ["z.jpg", "sub/y.jpg", "x.jpg"]
    tracked = [
        {"image_id": 0, "track_id": 7, "category_id": 1, "segmentation": compressed(blob)},
        {"image_id": 2, "track_id": 7, "category_id": 1, "segmentation": POLYGONS},
        {"image_id": 2, "track_id": 9, "category_id": 2, "segmentation": POLYGONS},
    ]
    videos = [{"id": 5, "name": "home/cats.mp4", "fps": 5, "timestamps": [0, 0.2, 0.4]}]
    path = coco(tmp_path, files, tracked, video_id=[5, 5, 5], frame_id=[30, 20, 10], videos=videos)
    record = read_one(opened("coco", path)).record
    assert (record.video, record.frame_names, record.fps) == ("home/cats", ("x", "y", "z"), 5)
    assert record.timestamps == (0, 0.2, 0.4)
    assert [track.id for track in record.objects] == [7, 9]
    polygons, nothing = polygon_mask(POLYGONS), np.zeros((HEIGHT, WIDTH), bool)
    np.testing.assert_array_equal(masks_of(record, 0), [polygons, nothing, blob])
    np.testing.assert_array_equal(masks_of(record, 1), [polygons, nothing, nothing])
    assert said(record) == [("cat", (7,)), ("dog", (9,))]


@pytest.mark.parametrize(
    "track", [{"attributes": {"track_id": 3}}, {"instance_id": "left one"}, {"object_id": 1}, {"track_id": 0}]
)
def test_images_of_a_folder_are_a_video_where_annotations_have_tracks(track: dict[str, Any], tmp_path: Path) -> None:
    files = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"]
    tracked = [{"image_id": id, "category_id": 1, "segmentation": POLYGONS, **track} for id in (0, 1)]
    alone = [{"image_id": id, "category_id": 2, "segmentation": POLYGONS} for id in (2, 3)]
    readings = read_all(opened("coco", coco(tmp_path, files, tracked + alone)))
    assert [one.record.video for one in readings] == ["cat", "dog/1", "dog/2"]
    assert [len(one.record.frames) for one in readings] == [2, 1, 1]
    assert [len(one.record.objects) for one in readings] == [1, 1, 1]


def test_an_annotation_without_track_is_an_object_of_one_frame_of_its_video(tmp_path: Path) -> None:
    alone = [{"image_id": id, "category_id": 2, "segmentation": POLYGONS} for id in (1, 2)]
    record = read_one(opened("coco", coco(tmp_path, ["1.jpg", "2.jpg", "3.jpg"], alone, video=["v"] * 3))).record
    mask, nothing = polygon_mask(POLYGONS), np.zeros((HEIGHT, WIDTH), bool)
    np.testing.assert_array_equal(masks_of(record, 0), [nothing, mask, nothing])
    np.testing.assert_array_equal(masks_of(record, 1), [nothing, nothing, mask])
    assert said(record) == [("dog", (100, 101))]


def test_polygons_are_clipped_at_the_edge_and_dropped_beyond_it(tmp_path: Path) -> None:
    across, beyond = [-10, -5, 12, 3, 9, 24.5], [100, 100, 900, 100, 900, 900]
    reading = read_image(
        tmp_path,
        {"caption": "across", "segmentation": [across, beyond]},
        {"caption": "beyond", "segmentation": [beyond]},
    )
    np.testing.assert_array_equal(masks_of(reading.record), [polygon_mask([across])])
    assert said(reading.record) == [("across", (100,))]
    assert reading.dropped == (
        Dropped("a", "polygon without a pixel in the image", "object 101, frame a"),
        Dropped("a", "object without pixels", "expression 1, of object 101: beyond"),
    )


def test_annotations_without_category_or_mask_are_dropped_and_counted(tmp_path: Path) -> None:
    reading = read_image(
        tmp_path,
        {"segmentation": POLYGONS},
        {"category_id": 9, "segmentation": POLYGONS},
        {"category_id": 1, "segmentation": POLYGONS},
        {"category_id": 2, "segmentation": [], "bbox": [0, 0, 5, 5]},
    )
    assert said(reading.record) == [("cat", (102,))]
    assert [one.reason for one in reading.dropped] == [
        "annotation without mask",
        "annotation without category or sentence",
        "annotation without category or sentence",
        "object without pixels",
    ]


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (
            {"segmentation": {"size": [30, 20], "counts": "22"}},
            r"RLE has size \[30, 20\], but height and width are",
        ),
        ({"segmentation": {"size": [20, 30], "counts": [1, 2]}}, "run lengths do not add up to the 600 pixels"),
        ({"segmentation": {"size": [20, 30], "counts": "#"}}, "RLE '#' holds no run lengths"),
        ({"segmentation": [[1, 2, 3, 4]]}, "is not at least three corners"),
        ({"segmentation": [["a"] * 6]}, "of finite numbers"),
        ({"segmentation": "cat.png"}, "its segmentation is neither polygons nor RLE, but 'cat.png'"),
        ({"segmentation": POLYGONS, "iscrowd": "no"}, r"annotations\[1\]: Expected `bool \| int`, got `str`"),
        ({"segmentation": POLYGONS, "category_id": [1]}, r"annotations\[1\]: Expected .*got `array`"),
    ],
)
def test_one_bad_annotation_costs_only_its_image(spoiled: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"image_id": 0, "category_id": 1, "segmentation": POLYGONS}
    source = opened("coco", coco(tmp_path, ["a.jpg", "b.jpg"], [good, {"image_id": 1, "category_id": 1, **spoiled}]))
    first, second = source.items()
    assert said(source.read(first).record) == [("cat", (100,))]
    with pytest.raises(BadItem, match=f"b: {tmp_path}/coco.json: .*{message}"):
        source.read(second)


def test_what_belongs_to_no_record_is_counted(tmp_path: Path) -> None:
    annotations = [{"image_id": 7, "segmentation": POLYGONS}, {"segmentation": POLYGONS}]
    source = opened("coco", coco(tmp_path, ["a.jpg"], annotations))
    assert source.items() == []
    assert isinstance(source, LeavesOut)
    assert [one.reason for one in source.left_out()] == [
        "annotation of no image",
        "annotation of no image",
        "image without annotation",
    ]


def test_images_of_a_video_differ_in_size(tmp_path: Path) -> None:
    one = {"image_id": 0, "category_id": 1, "segmentation": POLYGONS, "track_id": 1}
    path = coco(tmp_path, ["v/1.jpg", "v/2.jpg"], [one], width=[30, 40])
    with pytest.raises(BadItem, match=r"its images have the sizes 30x20 and 40x20"):
        read_one(opened("coco", path))


def test_images_of_one_stem_are_two_records_and_one_listed_twice_is_one(tmp_path: Path) -> None:
    one = {"category_id": 1, "segmentation": POLYGONS}
    path = coco(tmp_path, ["a.jpg", "a.png", "b.jpg", "b.jpg"], [{"image_id": id, **one} for id in range(4)])
    readings = read_all(opened("coco", path))
    assert [one.record.video for one in readings] == ["a.jpg", "a.png", "b"]
    assert [len(one.record.objects) for one in readings] == [1, 1, 2]
    assert [len(one.record.frames) for one in readings] == [1, 1, 1]


def test_frames_of_a_video_file_have_the_numbers_of_their_names(make_video: Any, tmp_path: Path) -> None:
    shades = np.linspace(0, 255, 8).astype(np.uint8)
    make_video("videos/cat.MP4", np.broadcast_to(shades[:, None, None, None], (8, HEIGHT, WIDTH, 3)))
    one = {"category_id": 1, "segmentation": POLYGONS, "track_id": 1}
    path = coco(tmp_path, ["cat/00002.jpg", "cat/00006.jpg"], [{"image_id": id, **one} for id in (0, 1)])
    record = read_one(opened("coco", path, videos=tmp_path / "videos")).record
    assert (record.frame_names, record.fps) == (("00002", "00006"), pytest.approx(25 / 4))
    assert record.timestamps == pytest.approx((2 / 25, 6 / 25))
    assert all(rle and rle_area(rle, (HEIGHT, WIDTH)) for rle in record.objects[0].rle)
    late = coco(tmp_path, ["cat/00008.jpg"], [{"image_id": 0, **one}])
    with pytest.raises(BadItem, match=r"frame 'cat/00008.jpg' is listed, but cat.MP4 has frames 0 … 7"):
        read_one(opened("coco", late, videos=tmp_path / "videos"))


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a\\b.jpg"])
def test_an_image_outside_the_folder_is_quarantined(name: str, tmp_path: Path) -> None:
    one = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": POLYGONS}
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [one], "categories": CATEGORIES}
    with pytest.raises(BadItem, match="would leave its folder"):
        read_one(opened("coco", write_json(tmp_path / "coco.json", content)))


def test_two_videos_of_one_name_are_refused_and_an_image_beside_one_keeps_its_suffix(tmp_path: Path) -> None:
    one = {"category_id": 1, "segmentation": POLYGONS}
    videos = [{"id": 1, "name": "clip.mp4"}, {"id": 2, "name": "clip.avi"}]
    both = [{"image_id": id, **one} for id in (0, 1)]
    path = coco(tmp_path, ["a/1.jpg", "b/1.jpg"], both, video_id=[1, 2], videos=videos)
    with pytest.raises(LayoutError, match=r"coco.json: two videos are called 'clip'"):
        opened("coco", path).items()
    path = coco(tmp_path, ["a/1.jpg", "clip.jpg"], both, video_id=[1, None], videos=videos)
    assert [one.record.video for one in read_all(opened("coco", path))] == ["clip", "clip.jpg"]


def test_a_damaged_file_among_several_costs_its_own_videos_alone(tmp_path: Path) -> None:
    coco(tmp_path, ["a.jpg"], [{"image_id": 0, "category_id": 1, "segmentation": POLYGONS}])
    (tmp_path / "cut.json").write_text('{"images": [')
    source = opened("coco", tmp_path)
    good, bad = source.items()
    assert source.read(good).record.video == "a"
    with pytest.raises(BadItem, match=rf"cut.json: {tmp_path}/cut.json: is no JSON, or cut short"):
        source.read(bad)
    (tmp_path / "coco.json").unlink()
    with pytest.raises(LayoutError, match=f"^{tmp_path}/cut.json is no JSON"):
        source.items()
