import numpy as np
import pytest
from pycocotools import mask as coco

from sgmg.masks import (
    bits_to_rles,
    dilate_disk,
    mask_boundary,
    mask_to_rle,
    mask_to_xyxy,
    masks_to_bits,
    masks_to_rles,
    resize_rles,
    rle_area,
    rle_shared_areas,
    rle_to_coco,
    rle_to_mask,
    rle_to_xywh,
    rle_to_xyxy,
    rle_union,
    rles_to_masks,
)


def drawn_masks(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < rng.random()


def empty(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), dtype=np.bool_)


@pytest.mark.parametrize("seed", range(20))
def test_masks_survive_the_round_trip_through_rle(seed: int) -> None:
    height, width = np.random.default_rng(seed).integers(1, 40, size=2).tolist()
    masks = drawn_masks(seed, (3, height, width))
    np.testing.assert_array_equal(rles_to_masks(masks_to_rles(masks), (height, width)), masks)


def test_a_stack_has_the_rles_of_its_masks() -> None:
    masks = drawn_masks(1, (4, 11, 7))
    assert masks_to_rles(masks) == [mask_to_rle(mask) for mask in masks]


@pytest.mark.parametrize("shape", [(3, 11, 7), (2, 16, 8), (0, 4, 6), (2, 3, 5, 9)])
def test_bits_have_the_rles_of_their_masks(shape: tuple[int, ...]) -> None:
    masks = drawn_masks(4, shape)
    bits = masks_to_bits(masks)
    assert bits.shape == (*shape[:-2], -(-shape[-1] * shape[-2] // 8))
    height, width = shape[-2:]
    rles = bits_to_rles(bits.reshape(-1, bits.shape[-1]), (height, width))
    assert rles == [mask_to_rle(mask) for mask in masks.reshape(-1, height, width)]


def test_bits_of_a_view_are_those_of_its_copy() -> None:
    masks = drawn_masks(5, (2, 10, 12))[:, ::-1, ::3]
    np.testing.assert_array_equal(masks_to_bits(masks), masks_to_bits(masks.copy()))


def test_a_resized_mask_is_the_shape_drawn_larger_or_smaller() -> None:
    def disk(height: int, width: int) -> np.ndarray:
        y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
        return ((y - 0.4) ** 2 + (x - 0.6) ** 2) < 0.09

    for size, new_size in (((36, 64), (108, 192)), ((36, 64), (20, 30)), ((36, 64), (36, 64))):
        (found,) = rles_to_masks(resize_rles([mask_to_rle(disk(*size))], size, new_size), new_size)
        wanted = disk(*new_size)
        assert (found & wanted).sum() / (found | wanted).sum() > 0.96
    assert resize_rles([mask_to_rle(empty(4, 6))], (4, 6), (8, 13)) == [mask_to_rle(empty(8, 13))]
    assert resize_rles([], (4, 6), (8, 13)) == []


def test_a_run_of_millions_of_pixels_survives() -> None:
    mask = empty(4000, 3000)
    mask[-1, -1] = True
    np.testing.assert_array_equal(rle_to_mask(mask_to_rle(mask), (4000, 3000)), mask)


def test_rles_are_those_of_pycocotools() -> None:
    mask = drawn_masks(2, (9, 13))
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle_to_coco(mask_to_rle(mask), (9, 13)) == {"size": [9, 13], "counts": theirs["counts"].decode()}  # pyright: ignore


def test_no_rles_are_no_masks() -> None:
    assert rles_to_masks([], (4, 6)).shape == (0, 4, 6)


def test_areas_and_unions_are_those_of_the_masks() -> None:
    masks = np.stack([drawn_masks(seed, (12, 9)) for seed in (3, 4, 5)])
    rles = masks_to_rles(masks)
    assert [rle_area(rle, (12, 9)) for rle in rles] == masks.sum(axis=(1, 2)).tolist()
    np.testing.assert_array_equal(rle_to_mask(rle_union(rles, (12, 9)), (12, 9)), masks.any(axis=0))
    assert rle_shared_areas(rles, rles[0], (12, 9)).tolist() == (masks & masks[0]).sum(axis=(1, 2)).tolist()


def test_the_union_of_nothing_is_empty() -> None:
    assert rle_area(rle_union([], (5, 4)), (5, 4)) == 0


@pytest.mark.parametrize("rle", ["", "é", "ooooo", "x", "\x00\x01"])
def test_a_damaged_rle_is_refused(rle: str) -> None:
    with pytest.raises(ValueError, match="no run lengths"):
        rle_to_mask(rle, (6, 8))


@pytest.mark.parametrize("size", [(3, 8), (10, 10)])
def test_the_rle_of_another_size_is_refused(size: tuple[int, int]) -> None:
    rle = mask_to_rle(drawn_masks(6, (6, 8)))
    with pytest.raises(ValueError, match=r"runs of 48 pixels.*height \d+, width \d+"):
        rle_area(rle, size)


def test_masks_that_are_not_boolean_are_refused() -> None:
    with pytest.raises(TypeError):
        masks_to_rles(np.full((1, 3, 3), 255, dtype=np.uint8))


def test_a_box_ends_on_the_last_pixel_of_the_object() -> None:
    mask = empty(6, 8)
    mask[2:4, 3:7] = True
    assert mask_to_xyxy(mask).tolist() == [3, 2, 6, 3]
    assert rle_to_xywh(mask_to_rle(mask), (6, 8)) == (3, 2, 4, 2)


def test_an_absent_object_has_a_box_of_zeros() -> None:
    masks = np.stack([empty(5, 5), ~empty(5, 5)])
    assert mask_to_xyxy(masks).tolist() == [[0, 0, 0, 0], [0, 0, 4, 4]]
    assert rle_to_xywh(mask_to_rle(masks[0]), (5, 5)) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(40))
def test_the_box_of_an_rle_is_that_of_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, size=2).tolist()
    mask = rng.random((height, width)) < rng.choice([0.02, 0.2, 0.9])
    assert rle_to_xyxy(mask_to_rle(mask), (height, width)) == tuple(mask_to_xyxy(mask).tolist())


def test_a_run_of_no_pixels_does_not_widen_a_box() -> None:
    # 5 of background, none of the object, 1, 2 of the object, 12: pycocotools never spells it so, others may.
    assert np.argwhere(rle_to_mask("5012;", (4, 5))).tolist() == [[2, 1], [3, 1]]
    assert rle_to_xyxy("5012;", (4, 5)) == (1, 2, 1, 3)


def test_boundaries_follow_the_rule_pixel_by_pixel() -> None:
    mask = drawn_masks(7, (7, 9))
    height, width = mask.shape
    expected = empty(height, width)
    for i in range(height):
        for j in range(width):
            neighbours = [
                mask[i + down, j + right]
                for down, right in ((0, 1), (1, 0), (1, 1))
                if i + down < height and j + right < width
            ]
            expected[i, j] = any(neighbour != mask[i, j] for neighbour in neighbours)
    np.testing.assert_array_equal(mask_boundary(mask), expected)
    np.testing.assert_array_equal(mask_boundary(np.stack([mask, ~mask])), np.stack([expected, expected]))


def test_a_mask_of_the_whole_frame_has_no_boundary() -> None:
    assert not mask_boundary(~empty(4, 5)).any()


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_dilation_takes_every_pixel_within_the_radius(radius: int) -> None:
    mask = empty(12, 15)
    mask[[0, 6], [1, 11]] = True
    rows, columns = np.indices(mask.shape)
    near = [(rows - row) ** 2 + (columns - column) ** 2 <= radius**2 for row, column in ((0, 1), (6, 11))]
    np.testing.assert_array_equal(dilate_disk(mask, radius), near[0] | near[1])
