"""Random copies of an image (spec data.md §3, "RefCOCO clips with T>1")."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.clips.pseudo_video import PseudoFrame, copy_image, copy_mask, draw_copy, suits_copies

STILL = PseudoFrame((0.0,) * 8, 0.0, 0.0, None, None, None)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def blob() -> np.ndarray:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[10:20, 20:40] = True
    return mask


def test_a_copy_without_a_change_is_the_image() -> None:
    np.testing.assert_array_equal(copy_image(noise(), STILL), noise())
    np.testing.assert_array_equal(copy_mask(blob(), STILL), blob())


def test_a_shift_is_one_fraction_of_either_axis_and_black_comes_in() -> None:
    copy = replace(STILL, shift=0.1)
    np.testing.assert_array_equal(copy_mask(blob(), copy)[14:24, 26:46], True)
    assert copy_mask(blob(), copy).sum() == blob().sum()
    image = copy_image(noise(), copy)
    np.testing.assert_array_equal(image[4:, 6:], noise()[:-4, :-6])
    assert image[:4].max() == image[:, :6].max() == 0


def test_a_rotation_turns_about_the_middle() -> None:
    mask = np.zeros((41, 41), dtype=np.bool_)
    mask[20, 5:20] = True
    turned = copy_mask(mask, replace(STILL, rotation=90.0))
    assert np.argwhere(turned).min(axis=0).tolist() == [21, 20]  # what was to the left is below
    assert turned.sum() == mask.sum()


def test_perspective_fills_the_copy_with_what_lies_within_the_corners() -> None:
    whole = np.ones((40, 60), dtype=np.bool_)
    whole[:2] = whole[-2:] = whole[:, :3] = whole[:, -3:] = False
    copy = replace(STILL, corners=(0.08,) * 8)
    assert copy_mask(whole, copy).all()
    assert not copy_mask(~whole, copy).any()


def test_image_and_mask_move_together() -> None:
    image = np.repeat(blob()[..., None] * np.uint8(255), 3, axis=2)
    rng = np.random.default_rng(0)
    for _ in range(10):
        copy = replace(draw_copy(rng), brightness=None, hue_saturation=None, blur=None)
        assert ((copy_image(image, copy)[..., 0] > 127) != copy_mask(blob(), copy)).sum() < 40


def test_brightness_is_added_and_clipped() -> None:
    brighter = copy_image(noise(), replace(STILL, brightness=40))
    np.testing.assert_array_equal(brighter, np.clip(noise().astype(int) + 40, 0, 255))


def test_hue_and_saturation_move_a_little_and_value_stays() -> None:
    changed = copy_image(noise(), replace(STILL, hue_saturation=5)).astype(int)
    np.testing.assert_allclose(changed.max(axis=2), noise().max(axis=2), atol=2)
    assert 0 < abs(changed - noise()).max() < 50


@pytest.mark.parametrize("direction", [0.0, 90.0, 33.0])
@pytest.mark.parametrize("length", [9, 11])
def test_motion_blur_runs_along_its_direction(length: int, direction: float) -> None:
    image = np.zeros((31, 31, 3), dtype=np.uint8)
    image[15, 15] = 255
    blurred = copy_image(image, replace(STILL, blur=(length, direction)))[..., 0]
    assert int(blurred.sum()) == pytest.approx(255, abs=length)
    rows, columns = np.nonzero(blurred)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(height, width) >= length - 2
    if direction in (0.0, 90.0):
        assert (height, width) == ((1, length) if direction == 0 else (length, 1))


def test_draws_have_the_ranges_of_the_spec() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_copy(rng) for _ in range(4000)]
    assert not [draw for draw in draws if draw.brightness is None and draw.hue_saturation is None]
    kinds = {(draw.brightness is None, draw.hue_saturation is None) for draw in draws}
    assert kinds == {(True, False), (False, True), (False, False)}
    assert {draw.brightness for draw in draws} - {None} == set(range(-40, 41))
    assert {draw.hue_saturation for draw in draws} - {None} == set(range(-5, 6))
    for values, limit in (
        ([draw.shift for draw in draws], 0.1),
        ([draw.rotation for draw in draws], 20),
        ([corner for draw in draws for corner in draw.corners], 0.08),
    ):
        assert 0.95 * limit < max(values) <= limit
    assert min(draw.shift for draw in draws) < -0.095
    assert min(corner for draw in draws for corner in draw.corners) >= 0
    blurs = [draw.blur for draw in draws if draw.blur is not None]
    assert len(blurs) / len(draws) == pytest.approx(0.25, abs=0.02)
    assert {length for length, _ in blurs} == {9, 11}


@pytest.mark.parametrize(
    ("size", "suits"),
    [((200, 640), True), ((199, 640), False), ((640, 199), False), ((480, 640), True), ((100, 320), True)],
)
def test_long_and_narrow_images_do_not_suit(size: tuple[int, int], suits: bool) -> None:
    assert suits_copies(size) is suits
