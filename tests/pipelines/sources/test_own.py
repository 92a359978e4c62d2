import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.images import decode_image, voc_palette
from pipelines.manifest import NO_PIXELS
from pipelines.prepare.row_info import row_info
from pipelines.records import Record, records_of, table_of
from pipelines.sources.base import Reading, Source
from pipelines.sources.own import Own
from pipelines.video.decoder import windows
from pipelines.video.listing import Video
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
        ("mp4parse__afconvert-aac-0.5s.mp4", "holds sound, but no moving picture"),
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
        (b"video,object_id,expression,text\nv,1,7,a\nv,1,7,b\n", "line 3: expression '7' is there twice in video 'v'"),
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


def test_the_table_may_have_empty_rows_and_columns_and_semicolons(own: Path) -> None:
    table = TABLE.replace("video,object_id", "Video,OBJECT_ID").replace("\n", ",,\n") + ",,,,,\n" * 3
    (own / "expressions.csv").write_text(table)
    assert [said.id for said in read_only_one(own).record.expressions] == ["0", "2"]
    (own / "expressions.csv").write_text(f"video;object_id;text\n{VIDEO};1;a cart, moving left\n;;\n")
    assert [said.text for said in read_only_one(own).record.expressions] == ["a cart, moving left"]


def test_the_table_of_a_davis_zip_keeps_the_ids_of_its_sentences(own: Path) -> None:
    rows = f"{VIDEO},1,cart,a cart\n{VIDEO},1,,a cart on its way\n"
    (own / "expressions.csv").write_text(f"video,object_id,expression,text\n{rows}")
    said = read_only_one(own).record.expressions
    assert [(one.id, one.external_id) for one in said] == [("cart", "cart"), ("1", "1")]


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
        Dropped(VIDEO, "empty expression", "expression 0"),
        Dropped(
            VIDEO,
            "object without pixels",
            "expression 1, of object 7: a bird (there are only pixels of 1, 2, 3 in its PNGs)",
        ),
    )
    assert [said.id for said in reading.record.expressions] == ["2"]


def test_an_object_is_absent_where_the_pngs_show_but_those_of_other_splits(own: Path) -> None:
    rows = [f"{VIDEO},7,a bird,train", *(f"{VIDEO},{id},it,valid" for id in (1, 2, 3))]
    (own / "expressions.csv").write_text("\n".join(["video,object_id,text,split", *rows]))
    reading = read_only_one(own)
    assert not reading.dropped
    assert [said.object_ids for said in reading.record.expressions] == [(7,)]
    assert row_info(reading.record).untrainable == {0: NO_PIXELS}


def tag(own: Path, orientation: int, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Tags the frames, cut to a size, and returns the first as stored and as viewers show it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in sorted((own / "JPEGImages" / VIDEO).iterdir()):
        image = Image.open(path)
        image.crop((0, 0, *(size or image.size))).save(path, quality=95, exif=exif)
    first = Image.open(own / "JPEGImages" / VIDEO / "00000.jpg")
    return np.asarray(first), np.asarray(ImageOps.exif_transpose(first))


def shown(record: Record) -> np.ndarray:
    return decode_image(record.frames[0], (record.height, record.width))


def turn_masks(own: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in (own / "Annotations" / VIDEO).iterdir():
        image = Image.open(path)
        image.getexif()[0x0112] = orientation
        ImageOps.exif_transpose(image).save(path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_frames_with_a_tag_are_turned_if_the_masks_fit_them_so(own: Path, orientation: int) -> None:
    expected = read_only_one(own).record
    stored, upright = tag(own, orientation)
    record = read_only_one(own).record
    assert (record.width, record.height, record.objects) == (428, 240, expected.objects)
    assert np.abs(shown(record).astype(int) - stored).mean() < 3
    turn_masks(own, orientation)
    record = read_only_one(own).record
    assert (record.width, record.height) == (240, 428)
    assert np.abs(shown(record).astype(int) - upright).mean() < 3


@pytest.mark.parametrize(("orientation", "size"), [(3, None), (2, None), (6, (240, 240))])
def test_frames_that_fit_both_ways_need_a_word(own: Path, orientation: int, size: tuple[int, int] | None) -> None:
    stored, upright = tag(own, orientation, size)
    if size:
        for path in (own / "Annotations" / VIDEO).iterdir():
            Image.open(path).crop((0, 0, *size)).save(path)
    with pytest.raises(BadItem, match=r"fit them turned and not turned. Give --exif apply if .* --exif ignore if"):
        read_only_one(own)
    for choice, expected in (("apply", upright), ("ignore", stored)):
        (item,) = source(own).items()
        record = replace(source(own), exif=choice).read(item).record
        assert np.abs(shown(record).astype(int) - expected).mean() < 3


def test_masks_that_fit_neither_way_are_refused_with_both_sizes(own: Path) -> None:
    tag(own, 6)
    write_mask(own / "Annotations" / VIDEO / "00000.png", 100, 100)
    with pytest.raises(BadItem, match=r"the mask is 100x100, but its frame 428x240. Masks of images have"):
        read_only_one(own)


def test_a_video_file_of_oblong_pixels_has_the_size_that_annotation_writes(data_kit: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(data_kit / "videos/mp4parse__sar_16_9.mp4", tmp_path / "videos/film.mp4")
    (window, *_) = windows(Video(str(tmp_path / "videos/film.mp4")))
    height, width = window.frames.shape[1:3]
    ids = write_mask(tmp_path / "Annotations/film/00000.png", width, height)
    (tmp_path / "expressions.csv").write_text("video,object_id,text\nfilm,1,the thing\n")
    record = read_only_one(tmp_path).record
    assert (record.width, record.height) == (width, height)
    np.testing.assert_array_equal(rle_to_mask(str(record.objects[0].rle[0]), (height, width)), ids == 1)
    assert np.abs(shown(record).astype(int) - window.frames[0]).mean() < 4


def grey(path: Path, ids: np.ndarray, bits: int) -> None:
    """Writes a grey PNG of so many bits."""
    packed = np.packbits(np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(len(ids), -1), axis=-1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_grey_pngs_of_few_bits_hold_the_ids_that_are_stored(own: Path, bits: int) -> None:
    expected = read_only_one(own).record.objects
    for path in (own / "Annotations" / VIDEO).iterdir():
        grey(path, np.asarray(Image.open(path)), bits)
    assert read_only_one(own).record.objects == expected


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_white_of_any_depth_is_the_one_object(own: Path, bits: int) -> None:
    (own / "expressions.csv").write_text(f"video,object_id,text\n{VIDEO},1,the cart\n")
    expected = read_only_one(own).record.objects
    for path in (own / "Annotations" / VIDEO).iterdir():
        grey(path, (np.asarray(Image.open(path)) == 1).astype(np.uint8) * np.uint8(2**bits - 1), bits)
    assert read_only_one(own).record.objects == expected


COLOURED = {0: (0, 0, 0), 1: (10, 20, 30), 2: (250, 250, 51), 3: (61, 61, 245)}


def colour(own: Path, colours: Mapping[int, tuple[int, ...]]) -> None:
    table = np.zeros((256, 3), np.uint8)
    for id, channels in colours.items():
        table[id] = channels
    for path in (own / "Annotations" / VIDEO).iterdir():
        Image.fromarray(table[np.asarray(Image.open(path))]).save(path)


@pytest.mark.parametrize("place", ["labelmap.txt", "Annotations/labelmap.txt"])
@pytest.mark.parametrize("names", [("object 1", "object 2", "object 3"), ("cart", "driver", "man")])
def test_colours_mean_what_the_label_map_says(own: Path, place: str, names: tuple[str, ...]) -> None:
    expected = read_only_one(own).record.objects
    colour(own, COLOURED)
    labels = [f"{name}:{','.join(map(str, COLOURED[id]))}::" for id, name in enumerate(("background", *names))]
    (own / place).write_text("\n".join(["# label:color_rgb:parts:actions", *labels]) + "\n")
    assert read_only_one(own).record.objects == expected


def test_colours_of_the_voc_palette_need_no_label_map(own: Path) -> None:
    expected = read_only_one(own).record.objects
    palette = np.frombuffer(voc_palette(4), np.uint8).reshape(4, 3).tolist()
    colour(own, dict(enumerate(map(tuple, palette))))
    assert read_only_one(own).record.objects == expected


def test_a_colour_that_means_nothing_is_named(own: Path) -> None:
    colour(own, COLOURED)
    with pytest.raises(
        BadItem, match=r"00000.png: \d+ pixels have the colour 10,20,30, which is neither in labelmap.txt"
    ):
        read_only_one(own)
    (own / "labelmap.txt").write_text("cart;1;2;3\n")
    with pytest.raises(LayoutError, match=r"labelmap.txt, line 1: 'cart;1;2;3' is not `name:red,green,blue::`"):
        read_only_one(own)


def whiten(own: Path) -> np.ndarray:
    """Makes the PNGs black and white masks of object 1; returns the first."""
    masks = []
    for path in sorted((own / "Annotations" / VIDEO).iterdir()):
        masks.append(np.asarray(Image.open(path)) == 1)
        Image.fromarray(masks[-1].astype(np.uint8) * 255).save(path)
    return masks[0]


def test_a_black_and_white_mask_is_the_one_object(own: Path) -> None:
    mask = whiten(own)
    (own / "expressions.csv").write_text(f"video,object_id,text\n{VIDEO},4,the cart\n{VIDEO},4,a blue cart\n")
    reading = read_only_one(own)
    assert not reading.dropped
    (track,) = reading.record.objects
    assert track.id == 4
    np.testing.assert_array_equal(rle_to_mask(str(track.rle[0]), (240, 428)), mask)


@pytest.mark.parametrize("second", ["train", "valid"])
def test_a_black_and_white_mask_of_several_objects_is_refused_with_the_ids_it_holds(own: Path, second: str) -> None:
    whiten(own)
    lines = ["video,object_id,text,split", f"{VIDEO},1,a cart,train", f"{VIDEO},2,a man,{second}"]
    (own / "expressions.csv").write_text("\n".join(lines))
    with pytest.raises(BadItem, match=rf"speak of object 1( and 2)?, but there are only pixels of 255 in {own}/Annot"):
        read_only_one(own)


def test_the_masks_that_lost_their_reason(case_kit: Path) -> None:
    record = read_only_one(case_kit / "masks_0_255").record
    assert [track.id for track in record.objects] == [1]
    assert len(record.expressions) == 1


def test_suffixes_in_capitals_nested_names_hidden_files_and_links_are_read(own: Path) -> None:
    expected = read_only_one(own).record
    for folder, suffix in (("JPEGImages", ".JPG"), ("Annotations", ".PNG")):
        for path in sorted((own / folder / VIDEO).iterdir()):
            path.rename(path.with_suffix(suffix))
        (own / folder / VIDEO / f"._00000{suffix}").write_bytes(b"macOS")
        (own / "elsewhere" / folder).parent.mkdir(exist_ok=True)
        (own / folder / VIDEO).rename(own / "elsewhere" / folder)
        (own / folder / "day 1").mkdir()
        (own / folder / "day 1" / "cart").symlink_to(own / "elsewhere" / folder)
    (own / "expressions.csv").write_text(TABLE.replace(VIDEO, "day 1/cart"))
    record = read_only_one(own).record
    assert record.video == "day 1/cart"
    assert (record.frame_names, record.frames) == (expected.frame_names, expected.frames)
    assert record.objects == expected.objects


def test_nested_video_files_are_found(make_video: Callable[..., Path], tmp_path: Path) -> None:
    make_video("videos/day 1/film.MOV", np.zeros((3, 24, 32, 3), np.uint8))
    write_mask(tmp_path / "Annotations/day 1/film/00000.png", 32, 24)
    (tmp_path / "expressions.csv").write_text("video,object_id,text\nday 1/film,1,the thing\n")
    assert len(read_only_one(tmp_path).record.frames) == 3


def test_the_fingerprint_follows_a_mask_that_moves_to_another_frame(own: Path) -> None:
    before = read_only_one(own).record.source_fingerprint
    folder = own / "Annotations" / VIDEO
    (folder / "00000.png").rename(folder / "00005.png")
    assert read_only_one(own).record.source_fingerprint != before
