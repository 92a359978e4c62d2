from pathlib import Path

import pytest

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.records import ObjectTrack
from pipelines.sources.coco_annotations import coco_rle
from pipelines.sources.frame_files import FrameFiles
from pipelines.sources.labels import (
    LabelledObject,
    LabelledSentence,
    VideoLabels,
    labelled_reading,
    labels_of,
    record_of_tracks,
)
from pipelines.sources.pictures import Pictures
from sgmg.masks import rle_union
from tool_files import opened, write_frames

SIZE = (20, 30)
FULL, EMPTY, HALF = '{"size":[20,30],"counts":[0,600]}', rle_union([], SIZE), '{"size":[20,30],"counts":[300,300]}'


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    write_frames(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])
    return FrameFiles(Folder(str(tmp_path))).listed("v", ["1.jpg", "2.jpg", "3.jpg"], None)


def labels(**values: object) -> VideoLabels:
    return VideoLabels("a.json", **values)  # pyright: ignore[reportArgumentType]


def test_labels_come_back_out_of_their_item(tmp_path: Path) -> None:
    made = labels(
        objects=[LabelledObject(3, {0: [FULL], 2: [HALF, FULL]}, "cat", True, [1])],
        sentences=[LabelledSentence("a cat", [3], "x")],
        frames=["1.jpg"],
        size=(30, 20),
        dropped=[("reason", "what")],
    )
    found = labels_of(made.item("v"), Folder(str(tmp_path)))
    assert found.file == f"{tmp_path}/a.json"
    assert (found.objects, found.sentences, found.size, found.dropped) == (
        made.objects,
        made.sentences,
        made.size,
        made.dropped,
    )
    with pytest.raises(BadItem, match=f"{tmp_path}/a.json: it is odd"):
        labels_of(labels(problem="it is odd").item("v"), Folder(str(tmp_path)))


def test_masks_of_a_frame_are_united_and_frames_without_are_absent_or_unknown(
    pictures: Pictures, tmp_path: Path
) -> None:
    one = LabelledObject(3, {0: [HALF, HALF]}, unknown=[1])
    found = labels(objects=[one], sentences=[LabelledSentence("a cat", [3])])
    reading = labelled_reading(opened("coco", tmp_path), found.item("v"), found, pictures)
    assert reading.record.objects == (ObjectTrack(3, (coco_rle(HALF, SIZE), None, EMPTY)),)
    late = labels(objects=[LabelledObject(3, {3: [HALF]})])
    with pytest.raises(BadItem, match=r"a.json: object 3, frame 3, but . has only 3 frames|has only 3 frames"):
        labelled_reading(opened("coco", tmp_path), late.item("v"), late, pictures)


def test_sentences_keep_the_objects_that_are_known(pictures: Pictures, tmp_path: Path) -> None:
    tracks = [ObjectTrack(2, (EMPTY, coco_rle(FULL, SIZE), None))]
    sentences = [LabelledSentence("a", [1]), LabelledSentence("b", [1, 2]), LabelledSentence(" ", [2])]
    reading = record_of_tracks(
        opened("coco", tmp_path), "v", pictures, tracks, sentences, dropped=(), made_from=["x"], times=(5, (0, 1, 2))
    )
    assert [(one.id, one.object_ids) for one in reading.record.expressions] == [("1", (2,))]
    assert [track.id for track in reading.record.objects] == [2]
    assert [one.reason for one in reading.dropped] == ["object without pixels", "empty expression"]
    assert (reading.record.fps, reading.record.timestamps) == (5, (0, 1, 2))
