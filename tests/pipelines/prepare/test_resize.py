from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.images import decode_image, nearest
from pipelines.prepare.resize import resized
from pipelines.records import ObjectTrack, Record
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.ytvos import RefYouTubeVOS
from sgmg.masks import rle_to_mask
from sgmg.resize import resized_size


@pytest.fixture
def record(data_kit: Path) -> Record:
    """A video of 12 frames of height 240, width 428, with three objects."""
    source = RefYouTubeVOS(Folder(str(data_kit / "refytvos")), "train")
    return source.read(next(item for item in source.items() if item.video == "31f1e819d1")).record


def test_the_shorter_side_is_as_asked_and_the_size_of_the_source_is_kept(record: Record) -> None:
    small = resized(record, 100, 95)
    assert (small.height, small.width) == resized_size(240, 428, 100) == (100, 178)
    assert (small.original_height, small.original_width) == (240, 428)
    unchanged = {"height": 240, "width": 428, "frames": record.frames, "objects": record.objects}
    assert replace(small, **unchanged) == record, "nothing else may change"


@pytest.mark.parametrize("short_side", [240, 241, 480])
def test_a_video_that_is_no_larger_stays_byte_for_byte(record: Record, short_side: int) -> None:
    assert resized(record, short_side, 50) is record


def test_frames_are_resized_by_the_filter_of_the_published_preprocessing(record: Record) -> None:
    small = resized(record, 100, 100)
    for before, after in zip(record.frames, small.frames, strict=True):
        image = Image.fromarray(decode_image(before, (240, 428)))
        wanted = np.asarray(image.resize((178, 100), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(decode_image(after, (100, 178)) - wanted).mean() < 1, "only what JPEG of quality 100 loses"


def test_colours_are_kept_at_full_resolution(record: Record) -> None:
    frame = resized(record, 100, 95).frames[0]
    header = frame.index(b"\xff\xc0")  # start of frame: …, components, then id, sampling, table of each
    assert [frame[header + 11 + 3 * place] for place in range(3)] == [0x11, 0x11, 0x11]


def test_a_lower_quality_makes_smaller_frames(record: Record) -> None:
    assert len(resized(record, 100, 30).frames[0]) < len(resized(record, 100, 95).frames[0])


def test_masks_are_resized_as_pytorch_does_it(record: Record) -> None:
    small = resized(record, 100, 95)
    for before, after in zip(record.objects, small.objects, strict=True):
        for large, found in zip(before.rle, after.rle, strict=True):
            assert large is not None
            assert found is not None
            mask = torch.from_numpy(rle_to_mask(large, (240, 428)))[None, None].float()
            wanted = F.interpolate(mask, (100, 178), mode="nearest")[0, 0].bool().numpy()
            assert (rle_to_mask(found, (100, 178)) == wanted).all()


def test_a_frame_that_is_not_annotated_stays_so(record: Record) -> None:
    track = record.objects[0]
    partly = replace(record, objects=(replace(track, rle=(None, *track.rle[1:])),), expressions=())
    assert resized(partly, 100, 95).objects[0].rle[0] is None


def test_boxes_and_areas_are_scaled(data_kit: Path) -> None:
    source = RefCoco(Folder(str(data_kit / "refcoco")), "train")
    record = source.read(source.items()[0]).record
    small = resized(record, 120, 95)
    wide, high = small.width / record.width, small.height / record.height
    for before, after in zip(record.objects, small.objects, strict=True):
        assert before.boxes
        assert before.area
        ((x1, y1, x2, y2),), (area,) = before.boxes, before.area  # pyright: ignore[reportGeneralTypeIssues]
        assert after.boxes == ((x1 * wide, y1 * high, x2 * wide, y2 * high),)
        assert after.area == (area * wide * high,)  # pyright: ignore[reportOptionalOperand]


def test_boxes_may_be_missing_in_some_frames(record: Record) -> None:
    boxes = ((0.0, 24.0, 107.0, 240.0), *[None] * 11)
    track = ObjectTrack(9, record.objects[0].rle, boxes=boxes, area=(100.0, *[None] * 11))
    (found,) = resized(replace(record, objects=(track,), expressions=()), 120, 95).objects
    assert found.boxes == ((0.0, 12.0, 53.5, 120.0), *[None] * 11)
    assert found.area == (25.0, *[None] * 11)


def test_a_frame_that_opencv_cannot_read_is_told(record: Record) -> None:
    broken = replace(record, frames=(b"GIF89a", *record.frames[1:]))
    with pytest.raises(BadItem, match="OpenCV") as caught:
        resized(broken, 100, 95)
    assert caught.value.stage == "resize"


def test_nearest_takes_a_stack() -> None:
    masks = np.array([[[True, False], [False, True]], [[False, False], [True, True]]])
    assert (nearest(masks, 4, 4) == masks.repeat(2, axis=1).repeat(2, axis=2)).all()
