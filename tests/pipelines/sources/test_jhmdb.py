import gzip
import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.records import Record
from pipelines.sources.base import Item, Reading
from pipelines.sources.frame_ids import frame_id
from pipelines.sources.jhmdb import JhmdbSentences
from sgmg.masks import rle_area, rle_to_coco, rles_to_masks

METADATA = "jhmdb_sentences_samples_metadata.json"
RUN, TWIRL = "davis_Parkour_run_f_cm_np1_ri_med_0", "davis_Twirl_@_1_wave_f_cm_np1_fr_med_0"
MAT = f"puppet_mask/run/{RUN}/puppet_mask.mat"


def source(root: Path) -> JhmdbSentences:
    return JhmdbSentences(Folder(str(root)))


def records(root: Path) -> list[Record]:
    jhmdb = source(root)
    return [jhmdb.read(pickle.loads(pickle.dumps(item))).record for item in jhmdb.items()]


def read(root: Path, video: str = RUN) -> Reading:
    jhmdb = source(root)
    return jhmdb.read(next(item for item in jhmdb.items() if item.video == video))


@pytest.fixture
def jhmdb(data_kit: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that may be spoiled."""
    root = tmp_path / "jhmdb"
    shutil.copytree(data_kit / "jhmdb", root, copy_function=shutil.copyfile)
    for folder in [root, *root.rglob("*/")]:
        folder.chmod(0o755)
    return root


@pytest.fixture
def unlisted(jhmdb: Path) -> Path:
    """The dataset without the metadata."""
    (jhmdb / METADATA).unlink()
    return jhmdb


def change_rows(root: Path, column: int, value: Any, only: int | None = None) -> None:
    """Puts another value in a column of the metadata, or of one of its rows."""
    rows = json.loads((root / METADATA).read_text())
    for number, row in enumerate(rows):
        if only in (None, number):
            row[column] = value
    (root / METADATA).write_text(json.dumps(rows))


def write_masks(root: Path, masks: np.ndarray) -> None:
    scipy.io.savemat(root / MAT, {"part_mask": masks})


def test_frames_and_masks_are_those_of_the_files(data_kit: Path) -> None:
    found = records(data_kit / "jhmdb")
    assert [record.video for record in found] == [
        "davis_Bmx_jump_f_cm_np1_le_med_1",
        "davis_Parkour_run_f_cm_np1_ri_med_0",
        "davis_Twirl_@_1_wave_f_cm_np1_fr_med_0",
    ]
    for record in found:
        (folder,) = (data_kit / "jhmdb" / "Rename_Images").glob(f"*/{record.video}")
        assert record.frames == tuple((folder / f"{name}.png").read_bytes() for name in record.frame_names)
        (mat,) = (data_kit / "jhmdb" / "puppet_mask").glob(f"*/{record.video}/puppet_mask.mat")
        truth = scipy.io.loadmat(mat)["part_mask"] > 0
        assert len(record.frames) == truth.shape[2]
        rles = [rle for rle in record.objects[0].rle if rle is not None]
        np.testing.assert_array_equal(rles_to_masks(rles, (record.height, record.width)), np.moveaxis(truth, 2, 0))


def test_ids_masks_and_areas_are_those_of_the_coco_file(data_kit: Path) -> None:
    coco = json.loads((data_kit / "jhmdb" / "jhmdb_sentences_gt_annotations_in_coco_format.json").read_text())
    found = {}
    for record in records(data_kit / "jhmdb"):
        (one,) = record.expressions
        for frame in one.frames or ():
            rle = record.objects[0].rle[frame]
            assert rle is not None
            size = (record.height, record.width)
            name = frame_id(one.external_id or "", record.frame_names[frame])
            found[name] = (rle_to_coco(rle, size), rle_area(rle, size))
    assert found == {row["image_id"]: (row["segmentation"], row["area"]) for row in coco["annotations"]}


def test_texts_and_asked_frames_are_those_of_the_metadata(data_kit: Path) -> None:
    rows = json.loads((data_kit / "jhmdb" / METADATA).read_text())
    found = {
        (record.video, record.frame_names[frame], len(record.frames), one.text)
        for record in records(data_kit / "jhmdb")
        for one in record.expressions
        for frame in one.frames or ()
    }
    assert found == {(video, Path(frame).stem, total, text) for video, frame, _, total, text in rows}


def test_the_published_metadata_lists_three_frames_a_video(data_kit: Path, jhmdb: Path) -> None:
    packed = data_kit / "originals" / "losh" / f"{METADATA}.gz"
    (jhmdb / METADATA).write_bytes(gzip.decompress(packed.read_bytes()))
    items = source(jhmdb).items()
    assert len(items) == 928
    assert {len(item.key["asked"]) for item in items} == {3}
    assert not any(item.key["problem"] or item.key["repeated"] for item in items)
    assert items[0].key["frames"] == "Rename_Images/pullup/100_pullups_pullup_f_nm_np1_fr_med_1"


def test_without_metadata_every_frame_with_a_mask_is_asked_and_said(
    unlisted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = records(unlisted)
    assert f"{unlisted / METADATA} is missing: every frame with a mask is asked" in caplog.text
    assert [record.expressions[0].frames for record in found] == [tuple(range(t)) for t in (5, 8, 6)]
    assert found[1].expressions[0].text == "a man in a grey t-shirt and black trousers running over obstacles"


def test_without_metadata_a_frame_whose_mask_is_empty_is_not_asked(unlisted: Path) -> None:
    masks = np.ones((240, 320, 8), np.uint8)
    masks[..., 2] = 0
    write_masks(unlisted, masks)
    assert read(unlisted).record.expressions[0].frames == (0, 1, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("with_metadata", [True, False])
def test_frames_beyond_the_masks_do_not_count(jhmdb: Path, with_metadata: bool) -> None:
    if not with_metadata:
        (jhmdb / METADATA).unlink()
    reading = read(jhmdb, TWIRL)
    assert reading.record.frame_names == tuple(f"{number:05d}" for number in range(1, 7))
    assert reading.dropped == (Dropped(TWIRL, "frame beyond the last that counts", "00007.png"),)


def test_fewer_masks_than_frames_that_count_leave_them_without_annotation(jhmdb: Path) -> None:
    write_masks(jhmdb, np.ones((240, 320, 6), np.uint8))
    reading = read(jhmdb)
    assert [rle is None for rle in reading.record.objects[0].rle] == [False] * 6 + [True] * 2
    assert reading.record.expressions[0].frames == (0, 4)
    what = f"frame 8: {reading.record.expressions[0].text}"
    assert reading.dropped == (Dropped(RUN, "asked frame without mask", what),)


def test_one_mask_without_its_last_axis_is_one_frame(unlisted: Path) -> None:
    write_masks(unlisted, np.ones((240, 320), np.uint8))
    assert read(unlisted).record.frame_names == ("00001",)


def test_an_object_without_pixels_is_refused(jhmdb: Path) -> None:
    write_masks(jhmdb, np.zeros((240, 320, 8), np.uint8))
    with pytest.raises(BadItem, match=rf"{jhmdb / MAT}: the object has no pixel in any frame"):
        read(jhmdb)


def test_masks_of_another_size_are_named(jhmdb: Path) -> None:
    write_masks(jhmdb, np.ones((320, 240, 8), np.uint8))
    with pytest.raises(
        BadItem, match=rf"{jhmdb / MAT} has masks of height, width \(320, 240\), the frames \(240, 320\)"
    ):
        read(jhmdb)


def test_a_mat_file_without_part_mask_is_named(jhmdb: Path) -> None:
    scipy.io.savemat(jhmdb / MAT, {"other": 1})
    with pytest.raises(BadItem, match=rf"{jhmdb / MAT} lacks part_mask"):
        read(jhmdb)


@pytest.mark.parametrize("size", [0, 100, -50])
def test_a_damaged_mat_file_is_named(jhmdb: Path, size: int) -> None:
    (jhmdb / MAT).write_bytes((jhmdb / MAT).read_bytes()[:size])
    with pytest.raises(BadItem, match=rf"{jhmdb / MAT} is no MATLAB file or damaged"):
        read(jhmdb)


def test_a_missing_mat_file_is_named(jhmdb: Path) -> None:
    (jhmdb / MAT).unlink()
    with pytest.raises(BadItem, match=rf"{jhmdb / MAT} does not exist"):
        read(jhmdb)


def test_a_missing_frame_is_named(jhmdb: Path) -> None:
    path = jhmdb / "Rename_Images" / "run" / RUN / "00003.png"
    path.unlink()
    with pytest.raises(BadItem, match=rf"{path} does not exist"):
        read(jhmdb)


def test_a_truncated_frame_is_named(jhmdb: Path) -> None:
    path = jhmdb / "Rename_Images" / "run" / RUN / "00003.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadItem, match=rf"{path}: the image is damaged or cut short"):
        read(jhmdb)


def test_frames_of_several_sizes_are_refused(jhmdb: Path) -> None:
    path = jhmdb / "Rename_Images" / "run" / RUN / "00003.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(BadItem, match=rf"{path} has size \(8, 8\), the frames before it \(320, 240\)"):
        read(jhmdb)


def test_a_video_with_no_frame_that_counts_is_refused(jhmdb: Path) -> None:
    change_rows(jhmdb, 3, 0)
    with pytest.raises(BadItem, match="no frame is listed or found"):
        read(jhmdb)


def test_an_empty_text_is_counted(jhmdb: Path) -> None:
    change_rows(jhmdb, 4, " ")
    reading = read(jhmdb)
    assert reading.record.expressions == ()
    assert reading.dropped == (Dropped(RUN, "empty expression", "0"),)


def test_repeated_rows_are_counted(jhmdb: Path) -> None:
    rows = json.loads((jhmdb / METADATA).read_text())
    (jhmdb / METADATA).write_text(json.dumps([*rows, rows[0], [*rows[1][:4], "someone else"]]))
    reading = read(jhmdb)
    assert [(one.reason, one.what) for one in reading.dropped] == [
        ("duplicate expression id", f"{rows[0][4]}, frame 1"),
        ("duplicate expression id", "someone else, frame 5"),
    ]
    assert reading.record.expressions[0].frames == (0, 4, 7)


def test_rows_that_contradict_each_other_cost_only_their_video(jhmdb: Path) -> None:
    change_rows(jhmdb, 3, 7, only=1)
    with pytest.raises(BadItem, match=rf"rows of {RUN} differ in folder, masks or total"):
        read(jhmdb)
    assert len(read(jhmdb, TWIRL).record.frames) == 6


@pytest.mark.parametrize("path", ["../../secret/00001.png", "/etc/00001.png"])
@pytest.mark.parametrize("column", [1, 2])
def test_a_path_that_would_leave_the_folder_is_refused(jhmdb: Path, path: str, column: int) -> None:
    change_rows(jhmdb, column, path, only=0)
    with pytest.raises(BadItem, match=r"row 0 \(from 0\): The name .* would leave its folder"):
        read(jhmdb)


def test_a_video_that_would_leave_its_folder_is_refused(jhmdb: Path) -> None:
    change_rows(jhmdb, 0, "../run", only=0)
    with pytest.raises(BadItem, match="would leave its folder"):
        read(jhmdb, "../run")


@pytest.mark.parametrize("row", [["v"], ["v", "./j/frame.png", "./j/a.mat", 8, "text"], ["v", 1, 2, 3, "text"], 7])
def test_a_bad_row_of_the_metadata_is_named(jhmdb: Path, row: object) -> None:
    (jhmdb / METADATA).write_text(json.dumps([row]))
    with pytest.raises(
        LayoutError, match=rf"{METADATA}, row 0 \(from 0\): .* is not \[video, path of a numbered frame"
    ):
        source(jhmdb).items()


def test_a_video_without_a_folder_costs_only_itself(unlisted: Path) -> None:
    shutil.rmtree(unlisted / "Rename_Images" / "run")
    with pytest.raises(BadItem, match=rf"<class>/{RUN} does not exist"):
        read(unlisted)
    assert len(read(unlisted, TWIRL).record.frames) == 6


def test_without_any_frames_it_is_another_dataset(unlisted: Path) -> None:
    shutil.rmtree(unlisted / "Rename_Images")
    with pytest.raises(LayoutError, match=r"Rename_Images does not exist or is empty\. Point --raw"):
        source(unlisted).items()


def test_the_folder_of_another_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"jhmdb_annotation\.txt does not exist.*check --dataset"):
        source(tmp_path).items()


def test_a_wrong_split_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no split 'train'\. Choose one of: test"):
        JhmdbSentences(Folder(str(tmp_path)), "train")


def test_ids_may_start_with_a_dash(jhmdb: Path) -> None:
    for folder in ("Rename_Images", "puppet_mask"):
        (jhmdb / folder / "run" / RUN).rename(jhmdb / folder / "run" / "-run")
    text = (jhmdb / METADATA).read_text().replace(RUN, "-run")
    (jhmdb / METADATA).write_text(text)
    assert source(jhmdb).items()[0] == Item("-run", source(jhmdb).items()[0].key)
    assert read(jhmdb, "-run").record.expressions[0].external_id == "v_-run_f_{frame}"
