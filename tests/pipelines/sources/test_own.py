import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.records import records_of, table_of
from pipelines.sources.base import Reading, Source
from pipelines.sources.own import Own
from sgmg.masks import rle_to_mask

VIDEO = "31f1e819d1"  # three objects, twelve frames
TABLE = """video,object_id,text,split
31f1e819d1,1,"a light blue cart, with orange wheels",train
31f1e819d1,2,The driver in the cart,valid
31f1e819d1,3,a man at the back,train
"""


def source(root: Path, split: str = "train") -> Own:
    return Own(Folder(str(root)), split)


def read_only_one(root: Path, split: str = "train") -> Reading:
    dataset: Source = source(root, split)
    (item,) = dataset.items()
    return dataset.read(item)


def write_mask(path: Path, width: int, height: int, id: int = 1) -> np.ndarray:
    ids = np.zeros((height, width), dtype=np.uint8)
    ids[: height // 2, : width // 3] = id
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return ids


@pytest.fixture
def own(data_kit: Path, tmp_path: Path) -> Path:
    """Frames of a real video, every other one annotated."""
    kit = data_kit / "refytvos/train"
    shutil.copytree(kit / "JPEGImages" / VIDEO, tmp_path / "JPEGImages" / VIDEO)
    shutil.copytree(kit / "Annotations" / VIDEO, tmp_path / "Annotations" / VIDEO)
    for path in sorted((tmp_path / "Annotations" / VIDEO).iterdir())[1::2]:
        path.unlink()
    (tmp_path / "expressions.csv").write_text(TABLE)
    return tmp_path


@pytest.fixture
def filmed(data_kit: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A folder with one video file, called film, and a sentence on it."""

    def make(name: str) -> Path:
        (tmp_path / "videos").mkdir()
        shutil.copy(data_kit / "videos" / name, tmp_path / "videos" / f"film{Path(name).suffix}")
        (tmp_path / "expressions.csv").write_text("video,object_id,text\nfilm,1,the thing\n")
        return tmp_path

    return make


def pixels(frame: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(frame)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_frames_keep_their_bytes_and_sentences_their_words(own: Path) -> None:
    reading = read_only_one(own)
    record = reading.record
    folder = own / "JPEGImages" / VIDEO
    assert record.frame_names == tuple(sorted(path.stem for path in folder.iterdir()))
    assert record.frames == tuple((folder / f"{name}.jpg").read_bytes() for name in record.frame_names)
    assert [(said.id, said.text, said.object_ids) for said in record.expressions] == [
        ("0", "a light blue cart, with orange wheels", (1,)),
        ("2", "a man at the back", (3,)),
    ]
    assert not reading.dropped
    assert records_of(table_of([record])) == [record]


def test_masks_are_the_pngs_and_frames_without_png_are_not_annotated(own: Path) -> None:
    record = read_only_one(own).record
    assert [track.id for track in record.objects] == [1, 3]
    for track in record.objects:
        for name, rle in zip(record.frame_names, track.rle, strict=True):
            path = own / "Annotations" / VIDEO / f"{name}.png"
            assert (rle is None) == (not path.exists())
            if rle is not None:
                expected = np.asarray(Image.open(path)) == track.id
                np.testing.assert_array_equal(rle_to_mask(rle, (240, 428)), expected)


def test_the_column_split_chooses_rows_and_without_it_every_row_is_of_train(own: Path) -> None:
    assert [said.id for said in read_only_one(own, "valid").record.expressions] == ["1"]
    (own / "expressions.csv").write_text(f"video,object_id,text\n{VIDEO},1,the cart\n")
    assert len(read_only_one(own).record.expressions) == 1
    with pytest.raises(LayoutError, match=f"{own}/expressions.csv has no row of split 'valid'. Choose one of train."):
        source(own, "valid").items()


def test_frames_sort_as_people_count(own: Path) -> None:
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for path in (own / folder / VIDEO).iterdir():
            path.rename(path.with_name(f"f{int(path.stem)}.{suffix}"))
    assert read_only_one(own).record.frame_names == tuple(f"f{number}" for number in range(0, 60, 5))


def test_items_and_the_source_travel_to_workers(own: Path) -> None:
    (item,) = source(own).items()
    away, carried = pickle.loads(pickle.dumps((source(own), item)))
    assert away.read(carried) == source(own).read(item)
    assert json.loads(json.dumps(item.key)) == item.key


def test_a_video_file_becomes_frames_with_their_times(filmed: Callable[[str], Path], data_kit: Path) -> None:
    root = filmed("constructed__vfr_known_pts.mp4")
    ids = write_mask(root / "Annotations/film/00011.png", 428, 240)
    record = read_only_one(root).record
    times = json.loads((data_kit / "videos/constructed__vfr_known_pts.json").read_text())["pts_ms"]
    assert record.timestamps == pytest.approx([time / 1000 for time in times])
    assert record.frame_names == tuple(f"{index:05d}" for index in range(12))
    assert record.fps == pytest.approx(75 / 7)
    assert record.objects[0].rle[:11] == (None,) * 11
    np.testing.assert_array_equal(rle_to_mask(str(record.objects[0].rle[11]), (240, 428)), ids == 1)
    assert records_of(table_of([record])) == [record]


def test_frames_of_a_video_file_look_as_they_were_filmed(filmed: Callable[[str], Path], data_kit: Path) -> None:
    root = filmed("constructed__lossless_rgb.mp4")
    write_mask(root / "Annotations/film/00000.png", 214, 120)
    pngs = sorted((data_kit / "videos/constructed__lossless_rgb_frames").iterdir())
    frames = read_only_one(root).record.frames
    for frame, png in zip(frames, pngs, strict=True):
        assert np.abs(pixels(frame) - pixels(png.read_bytes())).mean() < 4  # of 255; JPEG keeps half the colours


@pytest.mark.parametrize("name", ["constructed__rot90_tagged.mp4", "decord__video_90.mov", "decord__video_180.mov"])
def test_a_turned_video_comes_out_upright(filmed: Callable[[str], Path], name: str) -> None:
    root = filmed(name)
    film = cv2.VideoCapture(str(next((root / "videos").iterdir())))  # an independent reader that turns frames too
    upright = film.read()[1][..., ::-1].astype(int)
    height, width = upright.shape[:2]
    write_mask(root / "Annotations/film/00000.png", width, height)
    record = read_only_one(root).record
    assert (record.width, record.height) == (width, height)
    assert np.abs(pixels(record.frames[0]) - upright).mean() < 4


@pytest.mark.parametrize("name", ["film.mp4", "film.avi"])
def test_a_video_file_tagged_in_latin_1_is_read(
    make_video: Callable[..., Path], latin_1: Callable[[Path], Path], tmp_path: Path, name: str
) -> None:
    latin_1(make_video(f"videos/{name}", np.zeros((3, 24, 32, 3), np.uint8)))
    write_mask(tmp_path / "Annotations/film/00000.png", 32, 24)
    (tmp_path / "expressions.csv").write_text("video,object_id,text\nfilm,1,the thing\n")
    assert len(read_only_one(tmp_path).record.frames) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("constructed__truncated_mdat.mp4", "damaged or cut short after 10 frames"),
        ("decord__corrupted.mp4", "damaged or cut short after 28 frames"),
        ("constructed__truncated_no_moov.mp4", "no video, or cut short"),
        ("constructed__text_not_video.mp4", "no video, or cut short"),
        ("constructed__zero_bytes.mp4", "the file is empty"),
        ("mp4parse__afconvert-aac-0.5s.mp4", "holds sound, but no video"),
    ],
)
def test_a_video_file_that_cannot_be_decoded_is_quarantined(
    filmed: Callable[[str], Path], name: str, message: str
) -> None:
    root = filmed(name)
    with pytest.raises(BadItem, match=f"{root}/videos/film.mp4: .*{message}"):
        read_only_one(root)


def test_a_missing_table_or_no_frames_at_all_stops_everything(own: Path, data_kit: Path) -> None:
    with pytest.raises(LayoutError, match=r"jhmdb/expressions.csv does not exist.*--dataset"):
        source(data_kit / "jhmdb").items()
    shutil.rmtree(own / "JPEGImages")
    with pytest.raises(LayoutError, match=f"{own} holds no frames. Put them into JPEGImages"):
        source(own).items()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "begins with the columns none. It needs video, object_id, text"),
        (b"video,text\nv,a cart\n", "begins with the columns video, text"),
        (b"video,object_id,text\n", "has no row below its header"),
        (b"video,object_id,text\nv,1,a cart, moving left\n", "line 2 has 4 fields, not 3.*double quotes"),
        (b"video,object_id,text\nv,1,a cart\nv,one,a cart\n", "line 3: object_id 'one' is no whole number"),
        (b"video,object_id,text\nv,0,a cart\n", "object_id '0' is no whole number from 1"),
        (b"video,object_id,text\n,1,a cart\n", "line 2 has no video"),
        (b"video,object_id,text,split\nv,1,a cart,\n", "line 2 has no split"),
        (b'video,object_id,text\nv,1,"a cart\n', "line 2: .*Close every double quote"),
        (
            "video,object_id,text\nv,1,a café\n".encode("latin-1"),
            "line 2: byte 0xe9 is not utf-8.*Save the file as UTF-8",
        ),
    ],
)
def test_a_table_with_a_wrong_line_stops_everything(own: Path, table: bytes, message: str) -> None:
    (own / "expressions.csv").write_bytes(table)
    with pytest.raises(LayoutError, match=f"{own}/expressions.csv.*{message}"):
        source(own).items()


def test_the_table_may_come_out_of_a_spreadsheet(own: Path) -> None:
    (own / "expressions.csv").write_bytes(b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode() + b"\r\n")
    assert [said.id for said in read_only_one(own).record.expressions] == ["0", "2"]


def remove_frames(own: Path) -> None:
    shutil.rmtree(own / "JPEGImages" / VIDEO)
    (own / "JPEGImages/another").mkdir()


def add_video_file(own: Path) -> None:
    (own / "videos").mkdir()
    (own / "videos" / f"{VIDEO}.mp4").touch()


def cut_frame(own: Path) -> None:
    path = own / "JPEGImages" / VIDEO / "00010.jpg"
    path.write_bytes(path.read_bytes()[:3000])


def empty_folder(own: Path) -> None:
    for path in (own / "JPEGImages" / VIDEO).iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_frames, f"has no JPEGImages/{VIDEO}/ or videos/{VIDEO}.mp4"),
        (add_video_file, f"has frames in JPEGImages/{VIDEO} and videos/{VIDEO}.mp4"),
        (cut_frame, "00010.jpg: the image is damaged or cut short"),
        (empty_folder, f"JPEGImages/{VIDEO} holds no image"),
        (lambda own: (own / "JPEGImages" / VIDEO / "00000.png").touch(), "holds two images of one name"),
        (lambda own: shutil.rmtree(own / "Annotations"), f"Annotations/{VIDEO} holds no PNG.*00000 … 00055"),
        (lambda own: write_mask(own / "Annotations" / VIDEO / "7.png", 428, 240), "7.png belongs to no frame"),
        (lambda own: write_mask(own / "Annotations" / VIDEO / "00000.png", 240, 428), "the mask is 240x428, but its"),
        (lambda own: (own / "Annotations" / VIDEO / "00000.png").write_bytes(b"?"), "00000.png: the file is no image"),
    ],
)
def test_files_that_do_not_fit_send_their_video_to_quarantine(
    own: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(own)
    with pytest.raises(BadItem, match=message) as problem:
        read_only_one(own)
    assert problem.value.video == VIDEO
    assert str(own) in problem.value.reason


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_video_whose_name_leaves_the_folder_is_quarantined(own: Path, name: str) -> None:
    (own / "expressions.csv").write_text(f"video,object_id,text\n{name},1,the cart\n")
    with pytest.raises(BadItem, match="would leave its folder"):
        read_only_one(own)


def test_a_video_name_may_start_with_a_dash(own: Path) -> None:
    for folder in ("JPEGImages", "Annotations"):
        (own / folder / VIDEO).rename(own / folder / "-x")
    (own / "expressions.csv").write_text("video,object_id,text\n-x,1,the cart\n")
    assert read_only_one(own).record.video == "-x"


def test_empty_sentences_and_objects_without_pixels_are_dropped_and_counted(own: Path) -> None:
    (own / "expressions.csv").write_text(f"video,object_id,text\n{VIDEO},1,\n{VIDEO},7,a bird\n{VIDEO},2,a man\n")
    reading = read_only_one(own)
    assert reading.dropped == (
        Dropped(VIDEO, "object without pixels", "object 7"),
        Dropped(VIDEO, "empty expression", "expression 0"),
        Dropped(VIDEO, "expression of an object that is not there", "expression 1"),
    )
    assert [said.id for said in reading.record.expressions] == ["2"]


def test_the_fingerprint_follows_a_mask_that_moves_to_another_frame(own: Path) -> None:
    before = read_only_one(own).record.source_fingerprint
    folder = own / "Annotations" / VIDEO
    (folder / "00000.png").rename(folder / "00005.png")
    assert read_only_one(own).record.source_fingerprint != before
