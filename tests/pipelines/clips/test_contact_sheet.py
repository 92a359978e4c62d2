from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.contact_sheet import (
    BOX,
    GAP,
    HEIGHT,
    LINE,
    OUTLINE,
    WIDTH,
    Tile,
    contact_sheet,
    prepared_tiles,
    record_tile,
)
from pipelines.files import Folder
from pipelines.manifest import Manifest, read_manifest
from pipelines.prepare.run import finish, plan_shards
from pipelines.prepare.shard import ShardWriter
from pipelines.records import ObjectTrack
from pipelines.sources.a2d import A2DSentences
from pipelines.sources.base import Source
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.ytvos import RefYouTubeVOS
from prepared_data import a_record, prepared_folder
from sgmg.masks import mask_to_rle


def tile(caption: str = "a dog", t: int = 1, width: int = 300, height: int = 200) -> Tile:
    masks = np.zeros((t, height, width), dtype=np.bool_)
    masks[:, 50:100, 60:120] = True
    frames = np.full((t, height, width, 3), 90, dtype=np.uint8)
    return Tile(frames, masks, [(60.0, 50.0, 119.0, 99.0)] * t, caption)


def pixels_of(colour: tuple[int, int, int], *tiles: Tile) -> np.ndarray:
    return (np.asarray(contact_sheet(tiles)) == colour).all(axis=-1)


def prepared(source: Source, out: Path) -> Manifest:
    folder = Folder(str(out))
    plans = plan_shards(source, {}, 2)
    for plan in plans:
        ShardWriter(source, folder).write(plan)
    return finish(plans, source, folder, {})


def test_the_outline_goes_round_the_object_and_hides_none_of_it() -> None:
    bare = Tile(tile().frames, tile().masks, [None], "a dog")
    outline = pixels_of(OUTLINE, bare)
    rows, columns = np.nonzero(outline)
    assert (np.ptp(rows), np.ptp(columns)) == (50 + 3, 60 + 3)  # two pixels wide, outside
    assert outline.sum() == 54 * 64 - 50 * 60


def test_boxes_are_drawn_where_there_are_any() -> None:
    with_box = tile()
    assert pixels_of(BOX, with_box).any()
    assert not pixels_of(BOX, Tile(with_box.frames, with_box.masks, [None], "a dog")).any()


def test_tiles_stand_side_by_side_as_long_as_they_fit() -> None:
    one, four, five = (contact_sheet([tile()] * number) for number in (1, 4, 5))
    assert one.size == four.size
    assert four.width == five.width == WIDTH
    assert five.height > four.height > HEIGHT


def test_a_wide_tile_makes_the_sheet_wider() -> None:
    assert contact_sheet([tile(t=4, width=600)]).width > WIDTH


def test_many_frames_are_smaller_and_fit_onto_the_sheet() -> None:
    sheet = contact_sheet([tile(t=8)])
    assert sheet.width == WIDTH
    assert sheet.height < 2 * GAP + LINE + HEIGHT


@pytest.mark.parametrize(
    "caption", ["", "\n", "one two " * 60, "x" * 500, "naïve Ærø", "中文 \U0001f600", "\u202e\x00"]
)
def test_any_caption_is_drawn(caption: str) -> None:
    assert contact_sheet([tile(caption)]).width == WIDTH


def test_what_is_below_a_tile_stands_under_it_in_the_same_column() -> None:
    plain = contact_sheet([tile()])
    both = contact_sheet([replace(tile(), below=tile(width=200))] * 2)
    assert both.height == plain.height + GAP + LINE + HEIGHT
    boxes = (np.asarray(both) == BOX).all(axis=-1)
    upper, lower = boxes[: plain.height], boxes[plain.height :]
    assert upper.sum() == lower.sum() == boxes.sum() / 2
    assert upper.any(axis=0).nonzero()[0].tolist() == lower.any(axis=0).nonzero()[0].tolist()


def test_a_long_row_below_is_smaller_and_fits_onto_the_sheet() -> None:
    assert contact_sheet([replace(tile(), below=tile(t=5, width=640, height=360))]).width == WIDTH


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        contact_sheet([])


def test_samples_are_spread_over_the_data(data_kit: Path, tmp_path: Path) -> None:
    source = RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train")
    manifest = prepared(source, tmp_path)
    texts = [said.text for item in source.items() for said in source.read(item).record.expressions]
    shown = [one.caption.split("\n")[0] for one in prepared_tiles(Folder(str(tmp_path)), manifest, 2)]
    assert shown == [texts[len(texts) // 4], texts[3 * len(texts) // 4]]
    every = prepared_tiles(Folder(str(tmp_path)), manifest, 1000)
    assert [one.caption.split("\n")[0] for one in every] == texts


def test_a_tile_shows_the_annotated_frames_with_the_given_boxes(data_kit: Path) -> None:
    source = A2DSentences(Folder(str(data_kit / "a2d")), "train")
    record = source.read(source.items()[0]).record
    expression = record.expressions[0]
    assert expression.frames
    found = record_tile(record, expression)
    names = [record.frame_names[t] for t in expression.frames[:4]]
    assert found.caption == f"{expression.text}\n{record.video}  {' '.join(names)}"
    assert len(found.frames) == len(names) < len(record.frames)
    track = next(track for track in record.objects if track.id in expression.targets)
    assert track.boxes
    assert found.boxes == [track.boxes[t] for t in expression.frames[:4]]
    assert found.masks.any(axis=(1, 2)).all()


def test_a_tile_of_an_image_has_one_frame_in_its_true_colours(data_kit: Path) -> None:
    from PIL import Image

    source = RefCoco(Folder(str(data_kit / "refcoco")), "train")
    record = source.read(source.items()[0]).record
    found = record_tile(record, record.expressions[0])
    with Image.open(data_kit / "refcoco/train2014" / f"{record.video}.jpg") as image:
        wanted = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found.frames[0] - wanted).mean() < 1


def test_a_tile_without_truth_says_so(data_kit: Path) -> None:
    source = RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "valid")
    record = source.read(source.items()[0]).record
    found = record_tile(record, record.expressions[0])
    assert found.caption.endswith("(truth withheld)")
    assert not found.masks.any()
    assert found.boxes == [None] * 4


def test_below_each_sample_is_its_clip_as_the_first_epoch_draws_it(data_kit: Path, tmp_path: Path) -> None:
    manifest = prepared(RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train"), tmp_path)
    tiles = prepared_tiles(Folder(str(tmp_path)), manifest, 6, ClipRecipe.video())
    again = prepared_tiles(Folder(str(tmp_path)), manifest, 6, ClipRecipe.video())
    captions = set()
    for one, same in zip(tiles, again, strict=True):
        below = one.below
        assert below is not None
        assert same.below is not None
        np.testing.assert_array_equal(below.frames, same.below.frames)
        text, what = below.caption.split("\n")
        captions.add(what.partition(", frames")[0].partition(", ")[2])
        height, width = below.frames.shape[1:3]
        assert what.startswith(f"augmented: {width}x{height}")
        plain = one.caption.split("\n")[0]
        assert (text == plain) == ("mirrored" not in what or not {"left", "right"} & set(plain.split()))
        assert below.masks.any()
        assert all(mask.any() for mask, box in zip(below.masks, below.boxes, strict=True) if box)
    assert len(captions) > 2, "several kinds of augmentation were to be seen"


def test_below_a_sample_of_a2d_only_the_asked_frame_has_a_target(data_kit: Path, tmp_path: Path) -> None:
    manifest = prepared(A2DSentences(Folder(str(data_kit / "a2d")), "train"), tmp_path)
    for one in prepared_tiles(Folder(str(tmp_path)), manifest, 3, ClipRecipe.one_target_frame()):
        assert one.below is not None
        assert len(one.below.frames) == 5
        assert sum(mask.any() for mask in one.below.masks) == sum(box is not None for box in one.below.boxes) == 1


def test_below_what_is_not_learned_from_the_reason_is_given(data_kit: Path, tmp_path: Path) -> None:
    valid = prepared(RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "valid"), tmp_path / "valid")
    (one,) = prepared_tiles(Folder(str(tmp_path / "valid")), valid, 1, ClipRecipe.video())
    narrow = np.zeros((40, 56), dtype=np.bool_)
    narrow[5:20, 7] = True
    record = replace(a_record("a", 2), objects=(ObjectTrack(1, (mask_to_rle(narrow),) * 2),))
    record = replace(record, expressions=(replace(record.expressions[0], object_ids=(1,)),))
    folder = Folder(str(prepared_folder(tmp_path / "narrow", [record])))
    manifest = replace(read_manifest(folder), counts={"expressions": 1})
    (other,) = prepared_tiles(folder, manifest, 1, ClipRecipe.video())
    for shown, reason in ((one, "not learned from: truth withheld"), (other, "dropped: object in no frame after 10")):
        assert shown.below is not None
        assert shown.below.caption.startswith(reason)
        assert contact_sheet([shown]).height > contact_sheet([replace(shown, below=None)]).height
