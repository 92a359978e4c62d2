from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.errors import BadItem, LayoutError
from tool_files import HEIGHT, WIDTH, masks_of, opened, polygon_mask, read_all, read_one, said, write_frames

POINTS = "1.50,2.00;12.25,3.00;9.00,14.50"
POLYGON = polygon_mask([[1.5, 2, 12.25, 3, 9, 14.5]])
NOTHING = np.zeros((HEIGHT, WIDTH), bool)
META = """<task>{id}<name>{name}</name><size>{size}</size><mode>interpolation</mode>
<start_frame>{start}</start_frame><stop_frame>9</stop_frame><frame_filter>{step}</frame_filter></task>
<original_size><width>30</width><height>20</height></original_size><source>{source}</source>"""


def polygon(frame: int, outside: int = 0, inner: str = "", points: str = POINTS) -> str:
    return f'<polygon frame="{frame}" keyframe="1" outside="{outside}" occluded="0" points="{points}">{inner}</polygon>'


def track(*shapes: str, id: int = 0, label: str = "cat") -> str:
    return f'<track id="{id}" label="{label}" source="manual">{"".join(shapes)}</track>'


def attribute(name: str, value: str) -> str:
    return f'<attribute name="{name}">{value}</attribute>'


def cvat(folder: Path, *tracks: str, file: str = "annotations.xml", **meta: Any) -> Path:
    """Writes the XML of a task of five frames."""
    given = {"id": "<id>4</id>", "name": "cats at home", "size": 5, "start": 0, "step": "", "source": "cat.mp4"}
    meta = given | meta
    about = f"<meta>{META.format(**meta)}</meta>"
    path = folder / file
    text = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{about}'
    path.write_text(f"{text}{''.join(tracks)}</annotations>")
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images, where CVAT puts them."""
    write_frames(tmp_path / "images", [f"frame_{frame:06d}.png" for frame in range(5)])
    return tmp_path


def test_a_shape_holds_until_the_next_one_and_outside_ends_it(images: Path) -> None:
    other = "20,4;28,4;28,12.5;20.75,12"
    shapes = polygon(1), polygon(3, points=other), polygon(4, outside=1)
    reading = read_one(opened("cvat", cvat(images, track(*shapes))))
    record = reading.record
    assert not reading.dropped
    assert (record.video, record.frame_names[0], len(record.frames)) == ("cat", "frame_000000", 5)
    second = polygon_mask([[20, 4, 28, 4, 28, 12.5, 20.75, 12]])
    np.testing.assert_array_equal(masks_of(record), [NOTHING, POLYGON, POLYGON, second, NOTHING])
    assert said(record) == [("cat", (0,))]


def test_runs_of_masks_go_along_the_rows_of_their_box(images: Path) -> None:
    box = np.random.default_rng(0).random((6, 9)) < 0.5
    expected = NOTHING.copy()
    expected[3:9, 11:20] = box
    edges = np.flatnonzero(np.diff(np.concatenate([[0], box.ravel().astype(int)]))).tolist()
    runs = np.diff([0, *edges, box.size]).tolist()
    mask = f'<mask frame="0" keyframe="1" outside="0" rle="{", ".join(map(str, runs))}" left="11" top="3" width="9" '
    record = read_one(opened("cvat", cvat(images, track(f'{mask}height="6"></mask>')))).record
    np.testing.assert_array_equal(masks_of(record), [expected] * 5)


def test_the_sentence_is_an_attribute_or_else_the_label(images: Path) -> None:
    texts = attribute("Expression", "the black cat") + attribute("age", "3")
    tracks = [
        track(polygon(0, inner=texts), polygon(1, inner=texts)),
        track(polygon(0, inner=attribute("text", " ")), id=1, label="dog"),
        track(polygon(0), id=2, label=""),
    ]
    reading = read_one(opened("cvat", cvat(images, *tracks)))
    assert said(reading.record) == [("the black cat", (0,)), ("dog", (1,))]
    assert [one.reason for one in reading.dropped] == ["track without label or sentence"]


def test_boxes_and_tags_are_no_masks_and_are_counted(images: Path) -> None:
    box = '<box frame="{}" keyframe="1" outside="0" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    tag = '<tag frame="0" label="night"></tag>'
    path = cvat(images, track(box.format(0), box.format(1)), tag, tag, track(polygon(0), id=1))
    reading = read_one(opened("cvat", path))
    assert [track.id for track in reading.record.objects] == [1]
    assert [(one.reason, one.what) for one in reading.dropped] == [
        ("box, which is no mask", "track 0, 2 times"),
        ("tag of a frame", "night, 2 times"),
    ]


def test_polygons_outside_the_frame_are_clipped_or_dropped(images: Path) -> None:
    path = cvat(images, track(polygon(0, points="-9,-5;12,3;9,25"), polygon(1, points="90,90;99,90;99,99")))
    reading = read_one(opened("cvat", path))
    np.testing.assert_array_equal(masks_of(reading.record)[:2], [polygon_mask([[-9, -5, 12, 3, 9, 25]]), NOTHING])
    assert {one.reason for one in reading.dropped} == {"polygon without a pixel in the image"}


def test_frames_that_the_task_leaves_out_are_not_annotated(make_video: Any, tmp_path: Path) -> None:
    make_video("videos/cat.mp4", np.zeros((10, HEIGHT, WIDTH, 3), np.uint8))
    path = cvat(tmp_path, track(polygon(2), polygon(8, outside=1)), size=3, start=2, step="step=3")
    record = read_one(opened("cvat", path, videos=tmp_path / "videos")).record
    assert record.frame_names == tuple(f"{frame:05d}" for frame in range(10))
    expected: list[np.ndarray | None] = [None] * 10
    expected[2], expected[5], expected[8] = POLYGON, POLYGON, NOTHING
    for found, mask in zip(masks_of(record), expected, strict=True):
        np.testing.assert_array_equal(found, mask)  # pyright: ignore[reportArgumentType]


def test_images_named_by_cvat_have_the_number_of_their_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "images", ["frame_000002.png", "frame_000005.png"])
    path = cvat(tmp_path, track(polygon(5)), size=2, start=2, step="step=3")
    np.testing.assert_array_equal(masks_of(read_one(opened("cvat", path)).record), [NOTHING, POLYGON])


def test_masks_of_one_group_are_one_object_and_others_are_asked_for_together(images: Path) -> None:
    masks = [
        f'<mask frame="{{}}" outside="{{}}" rle="0, {n}" left="1" top="2" width="{n}" height="1"/>' for n in (4, 6, 8)
    ]
    tracks = [
        f'<track id="{id}" label="cat" {group}>{mask.format(id, 0)}{mask.format(id + 1, 1)}</track>'
        for id, (mask, group) in enumerate(zip(masks, ['group_id="20"', 'group_id="20"', 'group_id="0"'], strict=True))
    ]
    record = read_one(opened("cvat", cvat(images, *tracks))).record
    assert said(record) == [("cat", (0, 2))]
    assert [int(mask.sum()) for mask in masks_of(record, 0) if mask is not None] == [4, 6, 0, 0, 0]
    assert [int(mask.sum()) for mask in masks_of(record, 1) if mask is not None] == [0, 0, 8, 0, 0]


def test_our_own_export_counts_the_frames_that_were_annotated(make_video: Any, tmp_path: Path) -> None:
    ours = {"id": "", "name": "day 1/cat", "source": "/data/day 1/cat.mp4", "size": 2}
    path = cvat(tmp_path, track(polygon(1)), **ours)
    write_frames(tmp_path / "frames/day 1/cat", ["00000.jpg", "00005.jpg"])
    record = read_one(opened("cvat", path, tmp_path / "frames")).record
    assert (record.video, record.frame_names) == ("day 1/cat", ("00000", "00005"))
    np.testing.assert_array_equal(masks_of(record), [NOTHING, POLYGON])
    make_video("videos/day 1/cat.mp4", np.zeros((6, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(BadItem, match=r"counts the 2 frames that were annotated, but day 1/cat.mp4 has 6. Give"):
        read_one(opened("cvat", path, videos=tmp_path / "videos"))


def test_several_tasks_in_one_folder_are_videos_with_folders_of_their_own(tmp_path: Path) -> None:
    for number, source in enumerate(("cat.mp4", "")):
        cvat(tmp_path, track(polygon(0)), file=f"task_{number}.xml", source=source)
    for folder in ("cat", "cats at home"):
        write_frames(tmp_path / "frames" / folder, [f"{frame}.jpg" for frame in range(5)])
    readings = read_all(opened("cvat", tmp_path, tmp_path / "frames"))
    assert [one.record.video for one in readings] == ["cat", "cats at home"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (polygon(0, points="1,2;3"), "object 0, frame frame_000000: its polygon .* is not at least three corners"),
        (polygon(0, points="1,2;a,b;3,4"), r"track '0' \(cat\): could not convert string to float"),
        (polygon(0).replace('frame="0"', 'frame="one"'), r"'one' should be a whole number from 0"),
        (polygon(7), "has a shape in frame 7, but the last one of images is 4"),
        ('<mask frame="0" rle="1, 2" left="0" top="0" width="3" height="2"/>', "runs fill 3 pixels, but its box has 6"),
        ('<mask frame="0" rle="0, 6" left="29" top="0" width="3" height="2"/>', "leaves the frame of 30x20"),
        (f'<mask frame="0" rle="{10**30}" left="0" top="0" width="3" height="2"/>', "but its box has 6"),
        ('<mask frame="0" rle="0, 6" left="0" top="0" width="3"/>', "None should be a whole number"),
    ],
)
def test_a_bad_shape_sends_its_video_to_quarantine(shape: str, message: str, images: Path) -> None:
    path = cvat(images, track(shape))
    with pytest.raises(BadItem, match=f"cat: {path}.*{message}"):
        read_one(opened("cvat", path))


def test_frames_of_another_size_are_refused_with_both_sizes(tmp_path: Path) -> None:
    write_frames(tmp_path, [f"{frame}.jpg" for frame in range(5)], (40, 60))
    path = cvat(tmp_path, track(polygon(0)))
    with pytest.raises(BadItem, match=f"{path} annotates 30x20 pixels, but .* has 60x40"):
        read_one(opened("cvat", path))


ENTITY = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>'
BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTITY, "declares a document type or entities, which are not read"),
        (BOMB, "declares a document type or entities, which are not read"),
        (
            '<annotations><version>1.1</version><image id="0"/></annotations>',
            'holds <image>, as "CVAT for images 1.1" does',
        ),
        ("<annotations><object/></annotations>", 'holds <object>; "CVAT for video 1.1" has none'),
        ("<annotation><folder/></annotation>", "begins with <annotation>, not with <annotations>"),
        ("<annotations><meta><project/></meta></annotations>", "is the export of a project"),
        ("<annotations><meta>", "is no XML, or cut short"),
        ('{"images": []}', "is no XML, or cut short"),
    ],
)
def test_a_file_of_another_layout_stops_everything(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(LayoutError, match=f"{tmp_path}/a.xml {message}"):
        opened("cvat", tmp_path / "a.xml").items()


def test_a_damaged_file_among_several_costs_its_own_video_alone(tmp_path: Path) -> None:
    cvat(tmp_path, track(polygon(0)), source="", name="good")
    (tmp_path / "cut.xml").write_text("<annotations>")
    write_frames(tmp_path / "good", [f"frame_{frame:06d}.png" for frame in range(5)])
    source = opened("cvat", tmp_path)
    bad, good = source.items()
    assert source.read(good).record.video == "good"
    with pytest.raises(BadItem, match=r"cut.xml: .*/cut.xml: is no XML"):
        source.read(bad)
