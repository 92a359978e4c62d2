import numpy as np
import pytest

from pipelines.sources.coco_annotations import clipped_xyxy, coco_rle, segmentation_to_rle
from sgmg.masks import mask_to_rle, rle_to_mask, rle_union

SIZE = (6, 8)


def test_the_mask_of_several_polygons_is_their_union() -> None:
    left, right = [0, 0, 5, 0, 5, 6, 0, 6], [3.0, 0.0, 8.0, 0.0, 8.0, 3.0, 3.0, 3.0]
    expected = np.zeros(SIZE, dtype=np.bool_)
    expected[:, :5] = True
    expected[:3, 3:] = True
    assert (rle_to_mask(segmentation_to_rle([left, right], SIZE), SIZE) == expected).all()


def test_plain_and_compressed_run_lengths_give_the_same_mask() -> None:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[2:4, 1:3] = True
    plain = {"size": list(SIZE), "counts": [8, 2, 4, 2, 32]}
    compressed = {"size": list(SIZE), "counts": mask_to_rle(mask)}
    assert segmentation_to_rle(plain, SIZE) == segmentation_to_rle(compressed, SIZE) == mask_to_rle(mask)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "empty list"),
        (None, "neither polygons nor RLE, but None"),
        ({"size": [6, 8]}, "neither polygons nor RLE"),
        ([[1, 1, 2, 2]], "not at least three corners"),
        ([[1, 1, 2, 2, 3, 3, 4]], "not at least three corners"),
        ([[1, 1, 2, 2, 3, float("nan")]], "finite numbers"),
        ([[1, 1, 2, 2, 3, "3"]], "finite numbers"),
        ([[1, 1, 2, 2, 3, 1e9]], "far outside the image of 8x6"),
        ({"size": [8, 6], "counts": [48]}, r"size \[8, 6\], but height and width are \[6, 8\]"),
        ({"size": [6, 8], "counts": [40]}, "add up to the 48 pixels"),
        ({"size": [6, 8], "counts": [50, -2]}, "add up to the 48 pixels"),
        ({"size": [6, 8], "counts": "22"}, "pixels"),
    ],
)
def test_a_segmentation_that_is_none_says_why(segmentation: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        segmentation_to_rle(segmentation, SIZE)


def test_a_box_outside_the_image_keeps_no_area() -> None:
    assert clipped_xyxy([9, 1, 5, 5], SIZE) == (8, 1, 8, 6)


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], [1, 2, 3, float("inf")], [1, 2, 3, "4"]])
def test_a_box_that_is_none_says_so(bbox: object) -> None:
    with pytest.raises(ValueError, match="not four finite numbers"):
        clipped_xyxy(bbox, SIZE)


def test_a_polygon_beside_the_image_is_an_empty_mask_and_a_damaged_one_is_an_error() -> None:
    assert coco_rle("[[40,1,50,1,50,9]]", (20, 30)) == rle_union([], (20, 30))
    assert coco_rle("[[1,1,9,1,9,9],[1e9,1e9,2e9,1e9,2e9,2e9]]", (20, 30)) == coco_rle("[[1,1,9,1,9,9]]", (20, 30))
    for text, message in (
        ("[[40,1,50,1]]", "at least three corners"),
        ("7", "neither"),
        ("[[", "neither"),
        ("", "neither"),
    ):
        with pytest.raises(ValueError, match=message):
            coco_rle(text, (20, 30))
