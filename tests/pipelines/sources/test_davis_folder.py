import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.images import voc_palette
from sgmg.masks import rle_area
from tool_files import HEIGHT, WIDTH, masks_of, opened, read_one, said, write_frames

TABLE = 'video,object_id,expression,text\ncat,1,left,"the cat, on the left"\ncat,2,right,a dog\n'


def write_map(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette(voc_palette())
    image.save(path)


@pytest.fixture
def maps() -> np.ndarray:
    """Maps of three objects in three frames."""
    return np.random.default_rng(0).integers(0, 4, (3, HEIGHT, WIDTH))


@pytest.fixture
def davis(maps: np.ndarray, tmp_path: Path) -> Path:
    """What a zip of ours holds: maps of every other of five frames, and a table; images lie beside it."""
    for number, ids in enumerate(maps):
        write_map(tmp_path / f"davis/Annotations/cat/{2 * number:05d}.png", ids)
    (tmp_path / "davis/expressions.csv").write_text(TABLE)
    write_frames(tmp_path / "frames/cat", [f"{frame:05d}.jpg" for frame in range(5)])
    return tmp_path / "davis"


def test_maps_are_the_masks_and_frames_without_map_are_not_annotated(davis: Path, maps: np.ndarray) -> None:
    reading = read_one(opened("davis-folder", davis, davis.parent / "frames"))
    record = reading.record
    assert not reading.dropped
    assert [(one.id, one.text, one.object_ids) for one in record.expressions] == [
        ("left", "the cat, on the left", (1,)),
        ("right", "a dog", (2,)),
    ]
    for place, id in enumerate((1, 2)):
        found = masks_of(record, place)
        assert found[1] is found[3] is None
        np.testing.assert_array_equal(found[::2], maps == id)


def test_a_zip_is_read_as_it_is(davis: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "davis.zip", "w") as archive:
        for path in sorted(davis.rglob("*")):
            archive.write(path, path.relative_to(davis))
    frames = tmp_path / "frames"
    packed, unpacked = opened("davis-folder", tmp_path / "davis.zip", frames), opened("davis-folder", davis, frames)
    assert read_one(packed).record == read_one(unpacked).record


@pytest.mark.parametrize("layout", ["Annotations/480p", "."])
def test_other_layouts_with_images_beside_the_maps_are_read(layout: str, davis: Path, maps: np.ndarray) -> None:
    images = davis / ("JPEGImages/480p" if layout != "." else ".")
    (davis / "Annotations/cat").rename(davis / "cat")
    if layout != ".":
        (davis / layout).mkdir(parents=True)
        (davis / "cat").rename(davis / layout / "cat")
        shutil.copytree(davis.parent / "frames/cat", images / "cat")
    else:
        shutil.copytree(davis.parent / "frames", davis / "JPEGImages")
    np.testing.assert_array_equal(masks_of(read_one(opened("davis-folder", davis)).record)[::2], maps == 1)


@pytest.mark.parametrize("frames", [None, "davis"])
def test_maps_are_never_taken_for_frames(frames: str | None, davis: Path) -> None:
    (davis / "Annotations/cat").rename(davis / "cat")
    with pytest.raises(BadItem, match=r"Give the folder of the images as --frames|no images"):
        read_one(opened("davis-folder", davis, frames and davis))  # pyright: ignore[reportArgumentType]


def test_frames_of_a_video_file_have_the_numbers_of_the_maps(davis: Path, maps: np.ndarray, make_video: Any) -> None:
    make_video("videos/cat.mp4", np.zeros((5, HEIGHT, WIDTH, 3), np.uint8))
    record = read_one(opened("davis-folder", davis, videos=davis.parent / "videos")).record
    assert record.fps == 25
    np.testing.assert_array_equal(masks_of(record)[::2], maps == 1)


def test_an_object_that_no_map_shows_is_absent(davis: Path) -> None:
    rows = ("cat,1,a cat", "cat,9,a bird", "cat,2, ", "cat,2,a dog", "cat,3,a fox")
    (davis / "expressions.csv").write_text("\n".join(("video,object_id,text", *rows)))
    reading = read_one(opened("davis-folder", davis, davis.parent / "frames"))
    assert said(reading.record) == [("a cat", (1,)), ("a bird", (9,)), ("a dog", (2,)), ("a fox", (3,))]
    assert not any(rle and rle_area(rle, (HEIGHT, WIDTH)) for rle in reading.record.objects[-1].rle)
    assert reading.dropped == (Dropped("cat", "empty expression", "expression 2"),)


def test_where_the_maps_show_an_object_that_no_sentence_names_it_may_be_the_one_that_is_missing(davis: Path) -> None:
    (davis / "expressions.csv").write_text("video,object_id,text\ncat,1,a cat\ncat,9,a bird\n")
    reading = read_one(opened("davis-folder", davis, davis.parent / "frames"))
    assert said(reading.record) == [("a cat", (1,))]
    assert reading.dropped == (Dropped("cat", "object without pixels", "expression 1, of object 9: a bird"),)


def test_objects_of_other_splits_are_none_that_no_sentence_names(davis: Path) -> None:
    rows = ("cat,9,a bird,train", "cat,1,a cat,valid", "cat,2,a dog,valid", "cat,3,a fox,valid")
    (davis / "expressions.csv").write_text("\n".join(("video,object_id,text,split", *rows)))
    reading = read_one(opened("davis-folder", davis, davis.parent / "frames"))
    assert said(reading.record) == [("a bird", (9,))]
    assert not reading.dropped


def spoil_size(davis: Path) -> None:
    write_map(davis / "Annotations/cat/00000.png", np.ones((9, 9)))


def spoil_name(davis: Path) -> None:
    (davis / "Annotations/cat/00000.png").rename(davis / "Annotations/cat/7.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, "the mask is 9x9, but its frame 30x20"),
        (spoil_name, "the PNG 7 belongs to no frame of cat: 00000 … 00004"),
        (lambda davis: shutil.rmtree(davis / "Annotations"), "Annotations/cat holds no PNG"),
        (lambda davis: shutil.rmtree(davis.parent / "frames/cat"), "there are no images in .*/frames/cat"),
        (lambda davis: (davis / "Annotations/cat/00002.png").write_bytes(b"?"), "00002.png: the file is no image"),
        (
            lambda davis: (davis / "expressions.csv").write_text("video,object_id,text\ncat,8,x\n"),
            "speaks of object 8, but the PNGs in .*/Annotations/cat hold 1, 2, 3 only",
        ),
        (
            lambda davis: (davis / "expressions.csv").write_text("video,object_id,text\n../x,1,x\n"),
            "would leave its folder",
        ),
    ],
)
def test_files_that_do_not_fit_send_their_video_to_quarantine(spoil: Any, message: str, davis: Path) -> None:
    spoil(davis)
    with pytest.raises(BadItem, match=message):
        read_one(opened("davis-folder", davis, davis.parent / "frames"))


def test_a_folder_without_table_or_a_file_that_is_no_zip_stops_everything(davis: Path) -> None:
    (davis / "expressions.csv").unlink()
    with pytest.raises(LayoutError, match=f"{davis}/expressions.csv does not exist"):
        opened("davis-folder", davis).items()
    with pytest.raises(LayoutError, match=r"nowhere is no folder and no zip\. Point --raw at the folder that holds"):
        opened("davis-folder", davis / "nowhere").items()
    (davis.parent / "a.zip").write_bytes(b"PK")
    with pytest.raises(LayoutError, match=r"a.zip is no zip, or cut short"):
        opened("davis-folder", davis.parent / "a.zip").items()


@pytest.mark.parametrize("above", ["", "corrected/"])
def test_a_zip_of_the_folder_is_read_like_one_of_what_is_in_it(above: str, davis: Path, maps: np.ndarray) -> None:
    path = davis.parent / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(one for one in davis.rglob("*") if one.is_file()):
            archive.write(file, f"{above}{file.relative_to(davis)}")
        archive.writestr("__MACOSX/._x", b"")
    record = read_one(opened("davis-folder", path, davis.parent / "frames")).record
    found = masks_of(record)[0]
    assert found is not None
    assert np.array_equal(found, maps[0] == 1)


def test_a_zip_that_was_made_again_is_read_again(davis: Path) -> None:
    path = davis.parent / "a.zip"
    for text in ("a cat", "a dog and a cat"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("expressions.csv", f"video,object_id,text\ncat,1,{text}\n")
            archive.write(davis / "Annotations/cat/00000.png", "Annotations/cat/00000.png")
        record = read_one(opened("davis-folder", path, davis.parent / "frames")).record
        assert [one.text for one in record.expressions] == [text]


def test_frames_with_an_exif_orientation_are_turned_if_the_maps_fit_so(davis: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (davis.parent / "frames/cat").iterdir():
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    record = read_one(opened("davis-folder", davis, davis.parent / "frames")).record
    assert (record.width, record.height) == (WIDTH, HEIGHT)


def test_sentences_need_ids_of_their_own_or_none(davis: Path) -> None:
    for ids in (("1", ""), ("x", "x")):
        rows = "".join(f"cat,{number},{id},a cat\n" for number, id in enumerate(ids, start=1))
        (davis / "expressions.csv").write_text("video,object_id,expression,text\n" + rows)
        with pytest.raises(BadItem, match=f"two of its sentences have the id '{ids[0]}'"):
            read_one(opened("davis-folder", davis, davis.parent / "frames"))
