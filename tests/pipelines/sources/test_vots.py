"""The referring track of VOTS, in the layout of its toolkit's workspaces, made of real frames and masks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.clips.contact_sheet import record_tile
from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.scoring.truth import truth_of
from pipelines.sources.base import Reading
from pipelines.sources.vots import IGNORED, Vots, decode_region, encode_region, result_name
from sgmg.masks import rle_to_mask

VIDEO = "31f1e819d1"
SIZE = (240, 428)


@pytest.fixture
def vots(data_kit: Path, tmp_path: Path) -> Path:
    """A workspace with one sequence: frames 1 and 2 are annotated, 3 is not, and of the others no line is there."""
    kit = data_kit / "refytvos/train"
    sequence = tmp_path / "sequences" / "cart"
    (sequence / "color").mkdir(parents=True)
    for number, path in enumerate(sorted((kit / "JPEGImages" / VIDEO).iterdir()), start=1):
        shutil.copy(path, sequence / "color" / f"{number:08d}.jpg")
    maps = [np.asarray(Image.open(path)) for path in sorted((kit / "Annotations" / VIDEO).iterdir())[:2]]
    lines = [encode_region(ids == 1) for ids in maps]
    (sequence / "groundtruth_object1.txt").write_text("\n".join([*lines, "0"]) + "\n")
    (sequence / "groundtruth__ignore.txt").write_text(encode_region(maps[0] == 2) + "\n")
    about = "channels.color=color/%08d.jpg\nfps=24\nformat=default\nname=cart\nprompts=the cart; a=b wagon \n"
    (sequence / "sequence").write_text(about)
    (tmp_path / "sequences" / "list.txt").write_text("cart\n")
    return tmp_path


def read_only_one(root: Path, split: str = "valid") -> Reading:
    source = Vots(Folder(str(root)), split)
    (item,) = source.items()
    return source.read(item)


@pytest.mark.parametrize("inside", ["", "sequences"])
def test_a_sequence_has_several_sentences_about_one_object(vots: Path, data_kit: Path, inside: str) -> None:
    record = read_only_one(vots / inside).record
    assert [(one.text, one.object_ids) for one in record.expressions] == [("the cart", (1,)), (" a=b wagon ", (1,))]
    assert record.frame_names[:2] == ("00000001", "00000002")
    track, ignored = record.objects
    assert [rle is None for rle in track.rle] == [False, False, *[True] * 10]
    assert (track.category, ignored.category) == ("", IGNORED)
    ids = np.asarray(Image.open(min((data_kit / "refytvos/train/Annotations" / VIDEO).iterdir())))
    np.testing.assert_array_equal(rle_to_mask(str(track.rle[0]), SIZE), ids == 1)
    np.testing.assert_array_equal(rle_to_mask(str(ignored.rle[0]), SIZE), ids == 2)


def test_test_has_no_truth(vots: Path) -> None:
    record = read_only_one(vots, "test").record
    assert record.objects == ()
    assert [one.object_ids for one in record.expressions] == [None, None]
    with pytest.raises(LayoutError, match="vots has no split 'train'"):
        Vots(Folder(str(vots)), "train")


def test_files_of_results_are_called_as_the_tutorial_calls_them() -> None:
    # https://www.votchallenge.net/howto/referral.html
    assert [result_name("s", text) for text in ("the lights in the sky", "the northern lights at night")] == [
        "s_d6ee0fdd",
        "s_211dfaae",
    ]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_mask_is_read_as_it_was_written(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(rng.integers(1, 9, 2)) < share
        text = encode_region(mask)
        if mask.any():
            np.testing.assert_array_equal(decode_region(text, mask.shape), mask)
        else:
            assert text == "0"


def test_a_mask_of_the_whole_frame_is_read_too() -> None:
    small = decode_region("m1,0,2,2,0,3,1", (3, 4))
    np.testing.assert_array_equal(decode_region("m0,0,4,3,1,2,2,1,6", (3, 4)), small)
    np.testing.assert_array_equal(decode_region("m0,0,4,3,1,2,2,1", (3, 4)), small)
    assert not decode_region("m0,0,0,0,0", (3, 4)).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4", "is no mask, which begins with m"),
        ("m1,2", "is no mask: m, and numbers"),
        ("mx", "is no mask: m, and numbers"),
        ("m3,0,2,2,0,4", "leaves its frame of 4x3"),
        ("m0,0,2,2,-1,5", "leaves its frame"),
        ("m0,0,2,2,0,5", "are longer than its 2x2 pixels"),
    ],
)
def test_a_line_that_is_no_mask_of_the_frame_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_region(text, (3, 4))


def test_a_sentence_that_is_there_twice_has_one_file_of_results(vots: Path) -> None:
    about = (vots / "sequences/cart/sequence").read_text()
    (vots / "sequences/cart/sequence").write_text(about.replace("; a=b", ";the cart; a=b"))
    record = read_only_one(vots).record
    assert [one.text for one in record.expressions] == ["the cart", " a=b wagon "]


def test_a_name_may_have_a_blank_and_a_truth_no_mask_at_all(vots: Path) -> None:
    (vots / "sequences/cart").rename(vots / "sequences/a cart")
    (vots / "sequences/list.txt").write_text("a cart\n\n")
    (vots / "sequences/a cart/groundtruth_object1.txt").write_text("0\n0\n\n")
    record = read_only_one(vots).record
    assert record.video == "a cart"
    assert not truth_of(record).labelled_expressions
    assert record_tile(record, record.expressions[0]).frames.shape[0] > 0


def test_what_is_wrong_with_a_sequence_is_named(vots: Path) -> None:
    sequence = vots / "sequences/cart"
    (sequence / "groundtruth_object1.txt").write_text("0\n\n0\n")
    with pytest.raises(BadItem, match=r"groundtruth_object1.txt, line 2: '' is no mask"):
        read_only_one(vots)
    (sequence / "groundtruth_object1.txt").write_text("0\n" * 13)
    with pytest.raises(BadItem, match=r"groundtruth_object1.txt has 13 lines for 12 frames"):
        read_only_one(vots)
    (sequence / "groundtruth_object1.txt").write_text("0\nm1\n")
    with pytest.raises(BadItem, match=r"groundtruth_object1.txt, line 2: 'm1' is no mask"):
        read_only_one(vots)
    (sequence / "groundtruth_object1.txt").unlink()
    with pytest.raises(BadItem, match=r"holds groundtruth__ignore.txt, but the truth is of one object"):
        read_only_one(vots)
    (sequence / "sequence").write_text("name=cart\n")
    with pytest.raises(BadItem, match="has no sentence under 'prompts'"):
        read_only_one(vots)
    (vots / "sequences/list.txt").write_text("\n")
    with pytest.raises(LayoutError, match=r"sequences/list.txt lists no sequence"):
        read_only_one(vots)
