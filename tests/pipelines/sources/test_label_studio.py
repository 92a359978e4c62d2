from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, LayoutError
from pipelines.sources.base import LeavesOut
from tool_files import HEIGHT, WIDTH, masks_of, opened, packed, read_all, read_one, said, write_frames, write_json


def mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4


def brush(seed: int, id: str, label: str = "", **values: Any) -> dict[str, Any]:
    """Returns a region painted with a mask."""
    rle = packed(np.repeat(mask(seed) * 255, 4).tolist())
    frame = {"frame": values.pop("frame")} if "frame" in values else {}
    labels = {"brushlabels": [label]} if label else {}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    value = {"format": "rle", "rle": rle, **labels, **frame}
    return {"id": id, "type": "brushlabels", "from_name": "tag", "to_name": "image", **size, "value": value, **values}


def typed(id: str, *texts: str) -> dict[str, Any]:
    return {"id": id, "type": "textarea", "from_name": "t", "to_name": "image", "value": {"text": list(texts)}}


def task(*result: dict[str, Any], image: str = "/data/upload/1/0a1b2c3d-cat.jpg", **values: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 5, "result": list(result)}], **values}


def test_brushes_are_masks_and_typed_texts_are_sentences(tmp_path: Path) -> None:
    write_frames(tmp_path, ["cat.jpg"])
    results = brush(0, "x", "cat"), brush(1, "y", "dog"), typed("x", "the black cat", "a cat")
    reading = read_one(opened("label-studio", write_json(tmp_path / "a.json", [task(*results)])))
    record = reading.record
    assert not reading.dropped
    assert (record.video, record.frame_names) == ("0a1b2c3d-cat", ("cat",))
    assert said(record) == [("the black cat", (1,)), ("a cat", (1,)), ("dog", (2,))]
    np.testing.assert_array_equal(masks_of(record, 0), [mask(0)])
    np.testing.assert_array_equal(masks_of(record, 1), [mask(1)])
    assert [track.category for track in record.objects] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("/data/upload/3/0a1b2c3d-cat.jpg", "0a1b2c3d-cat.jpg"),
        ("/data/local-files/?d=photos/my%20cat.jpg", "photos/my cat.jpg"),
        ("s3://bucket/photos/cat.jpg", "photos/cat.jpg"),
        ("https://host/photos/cat.jpg?size=9", "cat.jpg"),
    ],
)
def test_images_are_found_wherever_label_studio_had_them(image: str, file: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "images", [file])
    path = write_json(tmp_path / "a.json", [task(brush(0, "x", "cat"), image=image)])
    assert read_one(opened("label-studio", path, tmp_path / "images")).record.frames == (
        (tmp_path / "images" / file).read_bytes(),
    )


def test_brushes_of_a_video_have_frames_from_1_and_other_frames_are_not_annotated(
    make_video: Any, tmp_path: Path
) -> None:
    make_video("videos/cat.mp4", np.zeros((4, HEIGHT, WIDTH, 3), np.uint8))
    results = brush(0, "x", "cat", frame=2), brush(1, "x", "cat", frame=3), brush(2, "y", "dog", frame=3)
    content = [task(*results, brush(3, "z", "cow"), data={"video": "/data/upload/1/0a1b2c3d-cat.mp4"})]
    path = write_json(tmp_path / "a.json", content)
    reading = read_one(opened("label-studio", path, videos=tmp_path / "videos"))
    assert [one.reason for one in reading.dropped] == ["brush without frame"]
    cat, dog = masks_of(reading.record, 0), masks_of(reading.record, 1)
    assert cat[0] is cat[3] is dog[0] is dog[3] is None
    np.testing.assert_array_equal(cat[1:3], [mask(0), mask(1)])
    np.testing.assert_array_equal(dog[1:3], [np.zeros((HEIGHT, WIDTH), bool), mask(2)])


def test_of_several_annotations_the_ground_truth_counts(tmp_path: Path) -> None:
    write_frames(tmp_path, ["cat.jpg"])
    several = [
        {"id": 1, "was_cancelled": True, "result": []},
        {"id": 2, "result": [brush(0, "x", "first")]},
        {"id": 3, "result": [brush(0, "x", "truth")], "ground_truth": True},
    ]
    reading = read_one(opened("label-studio", write_json(tmp_path / "a.json", [task(annotations=several)])))
    assert said(reading.record) == [("truth", (1,))]
    assert [(one.reason, one.what) for one in reading.dropped] == [("further annotation of a task", "annotation 2")]


def test_tasks_without_brush_and_regions_without_text_are_counted(tmp_path: Path) -> None:
    write_frames(tmp_path, ["a.jpg", "b.jpg"])
    box = {"id": "x", "type": "rectanglelabels", "value": {"x": 1}}
    content = [task(box, image="a.jpg"), task(brush(0, "x"), brush(1, "y", "cat"), image="b.jpg")]
    source = opened("label-studio", write_json(tmp_path / "a.json", content))
    (reading,) = read_all(source)
    assert said(reading.record) == [("cat", (2,))]
    assert [one.reason for one in reading.dropped] == ["annotation without category or sentence"]
    assert isinstance(source, LeavesOut)
    assert [(one.video, one.reason) for one in source.left_out()] == [("a.jpg", "task without brush")]


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (brush(0, "x", "cat") | {"value": {"format": "rle", "rle": [1, 2, 3]}}, "annotation without"),
        (brush(0, "x", "cat", original_width=40), r"a.json annotates 40x20 pixels, but .* has 30x20"),
        (brush(0, "x", "cat", image_rotation=90), "was painted on a turned image"),
        ({"id": "x", "type": 3, "value": {}}, r"a result of task 1: Expected `str`, got `int` - at `\$.type`"),
    ],
)
def test_one_bad_task_costs_only_its_picture(spoiled: dict[str, Any], message: str, tmp_path: Path) -> None:
    if "annotation" in message:
        spoiled["value"]["brushlabels"] = ["cat"]
        message = "object 1, frame b: its rle is cut short"
    write_frames(tmp_path, ["a.jpg", "b.jpg"])
    content = [task(brush(0, "x", "cat"), image="a.jpg"), task(spoiled, image="b.jpg")]
    source = opened("label-studio", write_json(tmp_path / "a.json", content))
    first, second = source.items()
    assert said(source.read(first).record)
    with pytest.raises(BadItem, match=message):
        source.read(second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "Label Studio's JSON has no key 'images'. Expected `array`, got `object`"),
        ([{"image": "a.jpg", "tag": []}], r"Object missing required field `data` - at `\$\[0\]`"),
        ([task() | {"data": {"img": "a.jpg"}}], "data of task 0 have neither image nor video, but img"),
        ([task(brush(0, "x", "a"))] * 2, "Two videos are called '0a1b2c3d-cat'"),
    ],
)
def test_a_file_of_another_layout_stops_everything(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=message):
        opened("label-studio", write_json(tmp_path / "a.json", content)).items()


@pytest.mark.parametrize("image", ["", "http://host/", "http://[x/a.jpg"])
def test_a_task_whose_picture_has_no_path_costs_only_itself(image: str, tmp_path: Path) -> None:
    tasks = [task(brush(0, "a", "cat")), task(brush(0, "a", "cat"), image=image) | {"id": 2}]
    write_frames(tmp_path, ["cat.jpg"])
    source = opened("label-studio", write_json(tmp_path / "export.json", tasks))
    good, bad = source.items()
    assert source.read(good).record.objects
    with pytest.raises(BadItem, match=r"export.json: the picture of task 2, .* is no path or URL"):
        source.read(bad)
