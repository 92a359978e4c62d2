import gzip
import io
import json
import pickle
import shutil
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.records import Record
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Item, Reading
from pipelines.sources.frame_ids import frame_id
from sgmg.masks import rle_area, rle_to_coco, rle_to_mask

H5 = "text_annotations/a2d_annotation_with_instances"
TEXTS = "text_annotations/a2d_annotation.txt"


def source(root: Path, split: str = "test") -> A2DSentences:
    return A2DSentences(Folder(str(root)), split)


def item(root: Path, video: str, split: str = "test") -> Item:
    return next(found for found in source(root, split).items() if found.video == video)


def read(root: Path, video: str = "davisSoap01", split: str = "test") -> Reading:
    return source(root, split).read(item(root, video, split))


def records(root: Path, split: str) -> list[Record]:
    a2d = source(root, split)
    return [a2d.read(pickle.loads(pickle.dumps(found))).record for found in a2d.items()]


@pytest.fixture
def a2d(data_kit: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that may be spoiled."""
    root = tmp_path / "a2d"
    shutil.copytree(data_kit / "a2d", root, copy_function=shutil.copyfile)
    for folder in [root, *root.rglob("*/")]:
        folder.chmod(0o755)
    return root


@pytest.fixture
def listed(a2d: Path) -> Path:
    """The dataset with nothing but the JSON lists to say what is asked."""
    (a2d / TEXTS).unlink()
    return a2d


def asked(found: list[Record]) -> set[tuple[str, str, int, int]]:
    return {
        (one.text, record.video, int(record.frame_names[frame]), one.targets[0])
        for record in found
        for one in record.expressions
        for frame in one.frames or ()
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_those_of_the_published_list(data_kit: Path, split: str) -> None:
    rows = json.loads((data_kit / "a2d" / f"a2d_sentences_single_frame_{split}_annotations.json").read_text())
    assert asked(records(data_kit / "a2d", split)) == {tuple(row) for row in rows}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_list_gives_the_same_records(data_kit: Path, listed: Path, split: str) -> None:
    for from_files, from_list in zip(records(data_kit / "a2d", split), records(listed, split), strict=True):
        assert from_list.expressions == from_files.expressions
        assert (from_list.frames, from_list.objects) == (from_files.frames, from_files.objects)


def test_ids_masks_and_areas_are_those_of_the_coco_file(data_kit: Path) -> None:
    coco = json.loads((data_kit / "a2d" / "a2d_sentences_test_annotations_in_coco_format.json").read_text())
    found = {}
    for record in records(data_kit / "a2d", "test"):
        tracks = {track.id: track for track in record.objects}
        for one in record.expressions:
            assert one.external_id is not None
            for frame in one.frames or ():
                rle = tracks[one.targets[0]].rle[frame]
                assert rle is not None
                size = (record.height, record.width)
                found[frame_id(one.external_id, record.frame_names[frame])] = (
                    rle_to_coco(rle, size),
                    rle_area(rle, size),
                )
    assert found == {row["image_id"]: (row["segmentation"], row["area"]) for row in coco["annotations"]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_masks_and_boxes_are_those_of_the_h5_files(data_kit: Path, split: str) -> None:
    for record in records(data_kit / "a2d", split):
        files = {int(path.stem): path for path in (data_kit / "a2d" / H5 / record.video).iterdir()}
        for track in record.objects:
            assert track.boxes is not None
            for number, (rle, box) in enumerate(zip(track.rle, track.boxes, strict=True), start=1):
                if number not in files:
                    assert (rle, box) == (None, None)
                    continue
                with h5py.File(files[number]) as file:
                    instances, masks, boxes = (np.asarray(file[name]) for name in ("instance", "reMask", "reBBox"))
                if track.id not in instances:
                    assert (rle, box) == (None, None)
                    continue
                row = instances.tolist().index(track.id)
                assert rle is not None
                mask = (masks if masks.ndim == 2 else masks[row]).T > 0
                np.testing.assert_array_equal(rle_to_mask(rle, (record.height, record.width)), mask)
                assert box == tuple(boxes[:, row])


def test_frames_are_those_of_the_clip(data_kit: Path) -> None:
    record = read(data_kit / "a2d", "-davisCamel").record
    with av.open(str(data_kit / "a2d" / "Release" / "CLIPS320" / "-davisCamel.mp4"), mode="r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert record.frame_names == tuple(f"{number:05d}" for number in range(1, len(decoded) + 1))
    for data, frame in zip(record.frames, decoded, strict=True):
        with Image.open(io.BytesIO(data)) as image:
            assert [sampling[1:3] for sampling in getattr(image, "layer")] == [(1, 1)] * 3  # noqa: B009 4:4:4
            assert abs(np.asarray(image).astype(int) - frame).mean() < 1.5
    assert (record.width, record.height, record.fps) == (568, 320, 24)
    assert record.timestamps == pytest.approx([number / 24 for number in range(len(decoded))])


def test_the_same_clip_gives_the_same_bytes_again(data_kit: Path) -> None:
    assert read(data_kit / "a2d", "davisSoap01") == read(data_kit / "a2d", "davisSoap01")


def test_ids_may_start_with_a_dash_or_an_underscore(data_kit: Path) -> None:
    assert [found.video for found in source(data_kit / "a2d").items()] == ["-davisCamel", "_davisHorse", "davisSoap01"]
    expression = read(data_kit / "a2d", "-davisCamel").record.expressions[0]
    assert frame_id(expression.external_id or "", "00011") == "v_-davisCamel_f_11_i_0"


def test_frames_without_the_instance_are_counted(data_kit: Path) -> None:
    reading = read(data_kit / "a2d", "_davisHorse")
    what = "instance 0: a brown horse jumping over the fence, frame 38"
    assert reading.dropped == (Dropped("_davisHorse", "instance not in annotated frame", what),)


def test_a_copied_instance_is_counted(data_kit: Path) -> None:
    reading = read(data_kit / "a2d", "davisSwan01", "train")
    what = "instance 1 (copy): bird standing in the beach"
    assert reading.dropped == (Dropped("davisSwan01", "instance is no number", what),)


def test_missed_videos_are_left_out_and_counted(data_kit: Path) -> None:
    train = source(data_kit / "a2d", "train")
    assert [found.video for found in train.items()] == ["davisBmx001", "davisDog001", "davisSwan01"]
    what = "instance 0: a white small car crossing the intersection"
    assert train.left_out() == [Dropped("davisCar001", "video in a2d_missed_videos.txt", what)]
    assert source(data_kit / "a2d").left_out() == []


def test_videos_of_no_split_are_counted(a2d: Path) -> None:
    with (a2d / TEXTS).open("a") as file:
        file.write("elsewhere,0,a cat\n")
    assert source(a2d).left_out() == [Dropped("elsewhere", "video not in videoset.csv", "instance 0: a cat")]


def test_the_original_texts_are_kept_as_they_are(data_kit: Path, a2d: Path) -> None:
    (a2d / TEXTS).write_bytes((data_kit / "originals" / "kgavrilyuk" / "a2d_annotation.txt").read_bytes())
    (a2d / "Release" / "videoset.csv").write_text("-2GEt8vi2RA,1,,,320,568,60,3,0\n")
    (a2d / "a2d_missed_videos.txt").write_bytes(
        (data_kit / "originals" / "kgavrilyuk" / "a2d_missed_videos.txt").read_bytes()
    )
    (a2d / "text_annotations" / "a2d_missed_videos.txt").unlink()
    (found,) = source(a2d, "train").items()
    assert found == Item("-2GEt8vi2RA", [("0", "a car is flying ", None)])


def test_the_list_of_losh_is_read_too(data_kit: Path, listed: Path) -> None:
    packed = data_kit / "originals" / "losh" / "a2d_sentences_single_frame_test_annotations.json.gz"
    (listed / "a2d_sentences_single_frame_test_annotations.json").write_bytes(gzip.decompress(packed.read_bytes()))
    found = source(listed).items()
    assert sum(len(frames) for video in found for _, _, frames in video.key) == 3686
    first = next(video for video in found if video.video == "-4KMQsUaSAQ")
    assert first.key[0] == ("0", "a man with red shirt is climbing up", [28, 56, 84])


def test_empty_and_repeated_texts_are_counted(a2d: Path) -> None:
    with (a2d / TEXTS).open("a") as file:
        file.write("davisSoap01,7,\ndavisSoap01,0,the same cart again\ndavisSoap01,9,a ghost\n")
    reading = read(a2d)
    assert [one.id for one in reading.record.expressions] == ["0", "1", "2"]
    assert [one.reason for one in reading.dropped if "frame " not in one.what] == [
        "empty expression",
        "duplicate expression id",
        "instance in no annotated frame",
    ]


def test_an_h5_without_masks_costs_only_its_video(a2d: Path) -> None:
    path = a2d / H5 / "davisSoap01" / "00014.h5"
    with h5py.File(path, "r+") as file:
        del file["reMask"]
    with pytest.raises(BadItem, match=rf"{path} lacks reMask"):
        read(a2d)
    assert len(read(a2d, "-davisCamel").record.expressions) == 1


def test_a_clip_that_is_no_video_is_named(a2d: Path) -> None:
    path = a2d / "Release" / "CLIPS320" / "davisSoap01.mp4"
    path.write_text("not found")
    with pytest.raises(BadItem, match=rf"{path} is no video or damaged"):
        read(a2d)


def test_a_video_without_annotations_is_refused(a2d: Path) -> None:
    shutil.rmtree(a2d / H5 / "davisSoap01")
    with pytest.raises(BadItem, match=r"davisSoap01 holds no files, not <frame number>\.h5"):
        read(a2d)


def test_an_annotated_frame_beyond_the_end_is_counted(a2d: Path) -> None:
    folder = a2d / H5 / "davisSoap01"
    shutil.copyfile(folder / "00014.h5", folder / "00099.h5")
    assert read(a2d).dropped == (Dropped("davisSoap01", "annotated frame beyond the end", "00099"),)


def test_a_missing_clip_is_named(a2d: Path) -> None:
    path = a2d / "Release" / "CLIPS320" / "davisSoap01.mp4"
    path.unlink()
    with pytest.raises(BadItem, match=rf"{path} does not exist"):
        read(a2d)


def test_a_video_that_would_leave_its_folder_is_refused(a2d: Path) -> None:
    with pytest.raises(BadItem, match="would leave its folder"):
        source(a2d).read(Item("../davisSoap01", []))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TEXTS, "video,instance,text\n", "It needs video_id, instance_id, query, separated"),
        (TEXTS, "video_id,instance_id,query\nv,0,a cat, a dog\n", "line 2 has 4 fields, not 3.*double quotes"),
        ("Release/videoset.csv", "davisSoap01,1,2\n", r"line 1: .* does not end with 0 \(train\) or 1 \(test\)"),
    ],
)
def test_a_damaged_annotation_file_is_named(a2d: Path, name: str, content: str, message: str) -> None:
    (a2d / name).write_text(content)
    with pytest.raises(LayoutError, match=rf"{a2d / name}.*{message}"):
        source(a2d).items()


def test_texts_in_latin_1_are_refused_with_the_line(a2d: Path) -> None:
    (a2d / TEXTS).write_bytes("video_id,instance_id,query\nv,0,a café\n".encode("latin-1"))
    with pytest.raises(LayoutError, match=r"a2d_annotation\.txt, line 2: byte 0xe9 is not utf-8"):
        source(a2d).items()


@pytest.mark.parametrize("row", [["a text", "davisSoap01", 7], ["a text", "davisSoap01", "x", 0], {"text": "a"}, 3])
def test_a_bad_row_of_the_list_is_named(listed: Path, row: object) -> None:
    (listed / "a2d_sentences_single_frame_test_annotations.json").write_text(json.dumps([row]))
    with pytest.raises(LayoutError, match=r"row 0 \(from 0\): .* is not \[text, video, frame, instance\]"):
        source(listed).items()


@pytest.mark.parametrize("name", ["Release/videoset.csv", "text_annotations/a2d_missed_videos.txt"])
def test_a_missing_annotation_file_is_named(a2d: Path, name: str) -> None:
    (a2d / name).unlink()
    with pytest.raises(LayoutError, match=rf"{a2d / name} does not exist"):
        source(a2d).items()


def test_the_folder_of_another_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"neither text_annotations/a2d_annotation\.txt nor .*check --dataset"):
        source(tmp_path).items()


def test_a_wrong_split_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no split 'valid'\. Choose one of: train, test"):
        source(tmp_path, "valid")
