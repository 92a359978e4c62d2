import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.exports import submission
from pipelines.exports.pngs import encode_mask, encode_object_map
from pipelines.exports.submission import read_object_maps, read_submission

Zip = Callable[[dict[str, bytes]], Path]


def pillow(pixels: np.ndarray) -> bytes:
    """As other people write a mask: eight bits a pixel."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


MASK = np.eye(5, 7, dtype=bool)
PNG = pillow(MASK * np.uint8(255))


@pytest.fixture
def zipped(tmp_path: Path) -> Zip:
    def written(entries: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return tmp_path / "a.zip"

    return written


@pytest.mark.parametrize("root", ["Annotations/", ""])
def test_anyones_zip_of_either_server_gives_masks_in_order(zipped: Zip, root: str) -> None:
    path = zipped(
        {
            f"{root}v/": b"",
            f"{root}v/10/00000.png": PNG,
            f"{root}v/9/00005.png": pillow(np.zeros((5, 7), np.uint8)),
            f"{root}v/9/00000.png": encode_mask(MASK),
            f"__MACOSX/{root}v/9/._00000.png": b"what macOS adds",
            f"{root}v/.DS_Store": b"this too",
            f"{root}a/0/00000.png": pillow(np.zeros((2, 3), np.uint8)),
        }
    )
    found = list(read_submission(path))
    assert [(one.video, one.expression, one.frame) for one in found] == [
        ("a", "0", "00000"),
        ("v", "9", "00000"),
        ("v", "9", "00005"),
        ("v", "10", "00000"),
    ]
    np.testing.assert_array_equal(found[1].mask, MASK)
    np.testing.assert_array_equal(found[3].mask, MASK)
    assert not found[0].mask.any()
    assert not found[2].mask.any()
    assert [one.frame for one in read_submission(str(path), {"v": (5, 7)})] == [one.frame for one in found]


def test_a_zip_made_on_windows_is_read_and_hidden_files_are_not(tmp_path: Path, zipped: Zip) -> None:
    path = zipped({"v/0/00000.png": PNG, "v/0/._00001.png": b"macOS", "v/0/00002.png": PNG})
    data = path.read_bytes()
    for name in (b"v/0/00000.png", b"v/0/._00001.png", b"v/0/00002.png"):
        data = data.replace(name, name.replace(b"/", b"\\"))
    (tmp_path / "windows.zip").write_bytes(data)
    found = [(one.video, one.expression, one.frame) for one in read_submission(tmp_path / "windows.zip")]
    assert found == [("v", "0", "00000"), ("v", "0", "00002")]


def test_the_table_of_sentences_beside_masks_is_passed_over(zipped: Zip) -> None:
    table = {"expressions.csv": b"video,object_id,expression,text\n"}
    for root in ("Annotations/", ""):
        (mask,) = read_submission(zipped({f"{root}v/0/00000.png": PNG} | table))
        np.testing.assert_array_equal(mask.mask, MASK)
    (one,) = read_object_maps(zipped({"anno_0/v/00000.png": encode_object_map(MASK * 2)} | table))
    np.testing.assert_array_equal(one.ids, MASK * 2)


def test_masks_come_one_at_a_time(zipped: Zip) -> None:
    masks = read_submission(zipped({"v/0/00000.png": PNG, "v/0/00005.png": b"spoilt"}))
    assert next(masks).frame == "00000"
    with pytest.raises(ValueError, match=r"a\.zip, v/0/00005\.png: the file is no PNG"):
        next(masks)


def test_only_the_masks_of_the_wanted_videos_are_decoded(zipped: Zip) -> None:
    path = zipped({"a/0/00000.png": b"spoilt", "b/0/00000.png": PNG})
    assert [one.video for one in read_submission(path, videos={"b"})] == ["b"]
    path = zipped({"anno_0/a/00000.png": b"spoilt", "anno_0/b/00000.png": encode_object_map(np.eye(3, dtype=int))})
    assert [one.video for one in read_object_maps(path, videos={"b"})] == ["b"]


def test_an_unpacked_submission_is_read_too(zipped: Zip, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped({"Annotations/v/0/00000.png": PNG})) as archive:
        archive.extractall(tmp_path / "unpacked")
    (one,) = read_submission(tmp_path / "unpacked")
    np.testing.assert_array_equal(one.mask, MASK)


@pytest.mark.parametrize("name", ["../../v/0/0.png", "/v/0/0.png", "v/../../0.png", "C:/v/0.png", "v\\..\\0/0/0.png"])
def test_names_that_would_leave_the_folder_are_refused_before_anything_is_read(zipped: Zip, name: str) -> None:
    masks = read_submission(zipped({"a/0/00000.png": PNG, name: PNG}))
    with pytest.raises(ValueError, match=r"would leave its folder.*Nothing of it was read"):
        next(masks)


@pytest.mark.parametrize("name", ["00000.png", "v/00000.png", "x/y/v/0/00000.png", "v/0/00000.jpg", "v/./00000.png"])
def test_another_layout_is_refused_with_the_one_expected(zipped: Zip, name: str) -> None:
    with pytest.raises(ValueError, match=r"but <video>/<expression id>/<frame>\.png is expected for every file"):
        next(read_submission(zipped({"v/0/00000.png": PNG, name: PNG})))


def test_a_zip_that_is_cut_short_is_refused(zipped: Zip) -> None:
    path = zipped({f"v/0/{frame:05d}.png": PNG for frame in range(20)})
    for keep in (0, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"a\.zip is no zip, empty or cut short"):
            next(read_submission(path))


def test_a_spoilt_entry_is_named(zipped: Zip) -> None:
    path = zipped({"v/0/00000.png": PNG})
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"v/0/00000\.png: it is damaged \(Bad CRC"):
        next(read_submission(path))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (MASK, "mode 1, but mode L"),
        (MASK * np.uint8(1), "holds the value 1"),
        (np.zeros((5, 7, 3), np.uint8), "mode RGB"),
        (np.zeros((5, 8), np.uint8), r"height, width \(5, 8\), but \(5, 7\)"),
    ],
)
def test_wrong_modes_values_and_sizes_are_refused(zipped: Zip, pixels: np.ndarray, said: str) -> None:
    masks = read_submission(zipped({"v/0/00000.png": PNG, "v/1/00000.png": pillow(pixels)}))
    next(masks)
    with pytest.raises(ValueError, match=rf"a\.zip, v/1/00000\.png: .*{said}"):
        next(masks)


def test_a_size_that_is_known_is_asked_for(zipped: Zip) -> None:
    with pytest.raises(ValueError, match=r"height, width \(5, 7\), but \(7, 5\)"):
        next(read_submission(zipped({"v/0/00000.png": PNG}), {"v": (7, 5)}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(zipped: Zip) -> None:
    path = zipped({"v/0/00000.png": PNG})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("v/0/00000.png", PNG)
    with pytest.raises(ValueError, match="twice"):
        next(read_submission(path))


def test_an_empty_zip_and_none_at_all_are_told(zipped: Zip, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no zip, empty or cut short"):
        next(read_submission(zipped({})))
    with pytest.raises(ValueError, match="holds no files"):
        next(read_submission(zipped({"v/": b""})))
    with pytest.raises(FileNotFoundError, match=r"b\.zip does not exist"):
        next(read_submission(tmp_path / "b.zip"))


def test_maps_of_objects_come_by_annotator(zipped: Zip) -> None:
    ids = np.arange(12).reshape(3, 4)
    path = zipped({f"anno_{k}/v/00000.png": encode_object_map(ids % (k + 1)) for k in (3, 0)})
    first, second = read_object_maps(path)
    assert (first.annotator, first.video, first.frame, second.annotator) == (0, "v", "00000", 3)
    np.testing.assert_array_equal(second.ids, ids % 4)
    with pytest.raises(ValueError, match="mode L, but mode P is needed"):
        next(read_object_maps(zipped({"anno_0/v/00000.png": PNG})))
    with pytest.raises(ValueError, match=r"only anno_0 … anno_3 are expected"):
        next(read_object_maps(zipped({"anno_4/v/00000.png": PNG})))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_without_a_limit_are_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("v/0/00000.png", PNG)
    with pytest.raises(ValueError, match=rf"v/0/00000\.png: it is packed by method {method} of zip, but only deflate"):
        next(read_submission(tmp_path / "a.zip"))


def test_a_file_of_more_bytes_than_a_mask_may_have_is_refused(
    zipped: Zip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "MAX_MASK_BYTES", 1000)
    path = zipped({"v/0/00000.png": PNG, "v/0/00001.png": PNG + bytes(1000)})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    for place in (path, tmp_path / "unpacked"):
        masks = read_submission(place)
        next(masks)
        with pytest.raises(ValueError, match=r"v/0/00001\.png: it has more than 1000 bytes"):
            next(masks)
