"""Sizes, crops and flips (spec data.md §3, "Geometry")."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.clips.augmentation import IMAGE, SMALL, STANDARD
from pipelines.clips.geometry import (
    Crop,
    Geometry,
    GeometryRecipe,
    Sizes,
    draw_geometry,
    have_area,
    mirror_boxes,
    mirror_text,
    resize_image,
    transform_boxes,
    transform_image,
    transform_mask,
)
from pipelines.images import nearest_pixels
from sgmg.resize import resized_size

CROPPED = Geometry((90, 160), Crop((100, 177), 20, 31, (60, 80)), (48, 64))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def torch_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return F.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")[0, 0].bool().numpy()


def drawn(recipe: GeometryRecipe, size: tuple[int, int], draws: int = 1500) -> list[Geometry]:
    rng = np.random.default_rng(0)
    return [draw_geometry(recipe, size, rng) for _ in range(draws)]


@pytest.mark.parametrize(
    ("recipe", "at_once", "cropped"),
    [
        (STANDARD, (288, 320, 352, 392, 416, 448, 480, 512), (288, 320, 352, 392, 416, 448, 480, 512)),
        (IMAGE, (480, 512, 544, 576, 608, 640, 672, 704, 736, 768), (296, 328, 360, 392, 416, 448, 480, 512)),
    ],
)
def test_half_of_the_clips_are_resized_and_half_enlarged_cropped_and_resized(
    recipe: GeometryRecipe, at_once: tuple[int, ...], cropped: tuple[int, ...]
) -> None:
    size = (480, 640)
    geometries = drawn(recipe, size)
    cap = 640 if recipe is STANDARD else 800
    plain = [geometry for geometry in geometries if geometry.crop is None]
    assert len(plain) / len(geometries) == pytest.approx(0.5, abs=0.04)
    assert {geometry.size for geometry in plain} == {resized_size(*size, side, cap) for side in at_once}
    crops = [(geometry, geometry.crop) for geometry in geometries if geometry.crop is not None]
    assert {crop.enlarged for _, crop in crops} == {resized_size(*size, side) for side in (400, 500, 600)}
    for geometry, crop in crops:
        assert geometry.size in {resized_size(*crop.size, side, 640) for side in cropped}


@pytest.mark.parametrize(("share", "crops"), [(0.0, 0), (1.0, 50)])
def test_the_share_of_crops_is_what_the_recipe_says(share: float, crops: int) -> None:
    geometries = [draw_geometry(replace(STANDARD, crop=share), (480, 640), np.random.default_rng(n)) for n in range(50)]
    assert sum(geometry.crop is not None for geometry in geometries) == crops


def test_a_share_of_crops_beyond_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop=1.5 is a probability"):
        replace(STANDARD, crop=1.5)


@pytest.mark.parametrize("size", [(480, 854), (720, 405)])
def test_crops_are_of_384_to_600_pixels_and_lie_anywhere_in_the_frame(size: tuple[int, int]) -> None:
    crops = [geometry.crop for geometry in drawn(STANDARD, size) if geometry.crop is not None]
    for axis in (0, 1):
        sides = {crop.size[axis] for crop in crops if min(crop.enlarged[axis], 600) == 600}
        assert min(sides) <= 390
        assert max(sides) == 600
        short = {crop.size[axis] for crop in crops if crop.enlarged[axis] == 400}
        assert not short or (min(short), max(short)) == (384, 400)
    rest = [(crop, crop.enlarged[0] - crop.size[0], crop.enlarged[1] - crop.size[1]) for crop in crops]
    assert all(0 <= crop.top <= down and 0 <= crop.left <= right for crop, down, right in rest)
    assert {"first", "last"} == {
        place for crop, down, _ in rest if down for place in [{0: "first", down: "last"}.get(crop.top)] if place
    }
    assert {"first", "last"} == {
        place for crop, _, right in rest if right for place in [{0: "first", right: "last"}.get(crop.left)] if place
    }


def test_the_small_recipe_makes_small_clips() -> None:
    for size in ((128, 192), (480, 854), (300, 200)):
        assert all(max(geometry.size) <= 192 for geometry in drawn(SMALL, size, 300))


def test_a_crop_that_does_not_fit_is_refused_at_birth() -> None:
    with pytest.raises(ValueError, match="no short side be under 384"):
        GeometryRecipe(Sizes((96,)), Sizes((128,)), Sizes((96,)))
    with pytest.raises(ValueError, match="set no cap"):
        GeometryRecipe(Sizes((96,)), Sizes((400,), 640), Sizes((96,)))
    with pytest.raises(ValueError, match="at least one short side"):
        Sizes(())


@pytest.mark.parametrize("size", [(45, 80), (131, 240)])
def test_frames_are_resized_as_pillow_does_it(size: tuple[int, int]) -> None:
    image = noise(90, 160)
    expected = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_image(image, size, "pillow"), expected)


@pytest.mark.parametrize("size", [(45, 80), (131, 240), (360, 640)])
def test_the_fast_filter_differs_from_pillow_by_a_rounding_here_and_there(size: tuple[int, int]) -> None:
    image = noise(480, 854)
    exact, fast = (resize_image(image, size, kind).astype(int) for kind in ("pillow", "torch"))
    assert abs(exact - fast).max() <= 1
    assert (exact != fast).mean() < 0.005


def test_the_fast_filter_takes_its_fast_path() -> None:
    # It does where the channels stay last in memory; else it needs twice the time, and all that follows more too.
    image = noise(90, 160)
    for part in (image, image[10:50, 20:70]):
        assert resize_image(part, (45, 80), "torch").flags.c_contiguous


def test_a_crop_is_resized_cropped_and_resized() -> None:
    image = Image.fromarray(noise(90, 160)).resize((177, 100), Image.Resampling.BILINEAR)
    expected = image.crop((31, 20, 111, 80)).resize((64, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(transform_image(noise(90, 160), CROPPED, "pillow"), np.asarray(expected))


@pytest.mark.parametrize("source", [(480, 854), (854, 480), (1048, 314)])
def test_rows_are_resized_before_columns_whatever_the_version_of_pillow(source: tuple[int, int]) -> None:
    """As the published numbers were made; Pillow 13 begins with the columns where a tall image shrinks most."""

    def as_published(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        rows = image.resize((size[1], image.height), Image.Resampling.BILINEAR)
        return rows.resize((size[1], size[0]), Image.Resampling.BILINEAR)

    image = noise(*source)
    for geometry in drawn(STANDARD, source, 6):
        expected = Image.fromarray(image)
        if (crop := geometry.crop) is not None:
            enlarged = as_published(expected, crop.enlarged)
            expected = enlarged.crop((crop.left, crop.top, crop.left + crop.size[1], crop.top + crop.size[0]))
        expected = as_published(expected, geometry.size)
        np.testing.assert_array_equal(transform_image(image, geometry, "pillow"), np.asarray(expected))


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = noise(9, 16)
    assert transform_image(image, Geometry((9, 16), None, (9, 16)), "pillow") is image


def test_the_nearest_pixel_is_that_of_torch_for_every_size() -> None:
    random = np.random.default_rng(0)
    for source, size in [(480, 360), (720, 512), (1067, 640), *random.integers(1, 1400, (200, 2)).tolist()]:
        row = torch.arange(source, dtype=torch.float32)[None, None]
        expected = F.interpolate(row, size, mode="nearest")[0, 0].long().tolist()
        assert nearest_pixels(source, size).tolist() == expected, (source, size)


def test_masks_are_resized_as_torch_does_it_and_in_one_step_through_a_crop() -> None:
    mask = np.random.default_rng(0).random((90, 160)) < 0.5
    resized = transform_mask(mask, Geometry((90, 160), None, (67, 240)))
    np.testing.assert_array_equal(resized, torch_nearest(mask, (67, 240)))
    enlarged = torch_nearest(mask, (100, 177))
    expected = torch_nearest(np.ascontiguousarray(enlarged[20:80, 31:111]), (48, 64))
    np.testing.assert_array_equal(transform_mask(mask, CROPPED), expected)


def test_boxes_are_scaled_moved_cut_and_scaled() -> None:
    geometry = Geometry((100, 200), Crop((200, 400), 30, 50, (100, 120)), (50, 60))
    moved = transform_boxes(boxes((30, 20, 60, 40), (0, 0, 199, 99), (90, 70, 150, 90)), geometry)
    # Twice as large, less the corner (50, 30), within 120 x 100, half as large.
    assert moved.tolist() == [[5, 5, 35, 25], [0, 0, 60, 50], [60, 50, 60, 50]]
    assert moved.dtype == np.float32


def test_the_box_of_a_frame_resized_at_once_is_only_scaled() -> None:
    moved = transform_boxes(boxes((10, 20, 30, 40)), Geometry((100, 200), None, (50, 300)))
    assert moved.tolist() == [[15, 10, 45, 20]]


def test_a_box_without_width_or_height_is_not_valid() -> None:
    rows = boxes((1, 1, 2, 2), (1, 1, 1, 2), (1, 1, 2, 1), (0, 0, 0, 0), (3, 1, 2, 2))
    assert have_area(rows).tolist() == [True, False, False, False, False]


def test_a_mirrored_box_counts_from_the_other_side() -> None:
    assert mirror_boxes(boxes((2, 1, 5, 3)), 20).tolist() == [[15, 1, 18, 3]]


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the left dog right of the tree", "the right dog left of the tree"),
        ("a bright upright thing leftover", "a bright upright thing leftover"),
        ("left", "right"),
        ("the right-hand cup, left", "the left-hand cup, right"),
        ("Left of RIGHT", "Right of LEFT"),
        ("nothing to see", "nothing to see"),
    ],
)
def test_only_the_whole_words_left_and_right_trade_places(text: str, mirrored: str) -> None:
    assert mirror_text(text) == mirrored
    assert mirror_text(mirrored) == text
