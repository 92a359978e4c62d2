"""Random colours (spec data.md §3, "Colour")."""

import cv2
import numpy as np
import pytest

from pipelines.clips.colour import CHANNEL_ORDERS, Colour, apply_colour, draw_colour


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def by_the_letter(image: np.ndarray, colour: Colour, contrast_first: bool) -> np.ndarray:
    """The rule in floats of 32 bits, with a real way through HSV; before it goes back to 8 bits."""
    pixels = image.astype(np.float32)
    if colour.brightness is not None:
        pixels = np.clip(pixels + np.float32(colour.brightness), 0, 255)
    if contrast_first and colour.contrast is not None:
        pixels = pixels * np.float32(colour.contrast)
    if colour.saturation is not None:
        hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
        pixels = cv2.cvtColor(cv2.merge([hue, saturation * np.float32(colour.saturation), value]), cv2.COLOR_HSV2RGB)
    if not contrast_first and colour.contrast is not None:
        pixels = pixels * np.float32(colour.contrast)
    return pixels[..., list(colour.channels)]


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("saturation", [0.803, 0.93, 1.187])
@pytest.mark.parametrize("contrast", [None, 0.811, 1.17])
@pytest.mark.parametrize("brightness", [None, -31.3, 17.9])
def test_saturation_is_that_of_a_way_through_hsv_on_either_side_of_contrast(
    brightness: float | None, contrast: float | None, saturation: float, contrast_first: bool
) -> None:
    colour = Colour(brightness, contrast, saturation, channels=(2, 0, 1))
    exact = np.clip(by_the_letter(noise(), colour, contrast_first), 0, 255)
    # HSV in 32 bits is itself off by some 1e-3: where the exact number is whole, it may be cut either way.
    result = apply_colour(noise(), colour)
    assert np.all((result >= np.floor(exact - 4e-3)) & (result <= np.floor(exact + 4e-3)))
    assert (result == np.floor(exact)).mean() > 0.98


@pytest.mark.parametrize("contrast", [None, 0.83, 1.2])
@pytest.mark.parametrize("brightness", [None, -32.0, 8.75])
def test_brightness_and_contrast_are_exact(brightness: float | None, contrast: float | None) -> None:
    pixels = noise().astype(np.float64)
    pixels = np.clip(pixels + (brightness or 0), 0, 255) * (contrast or 1)
    expected = np.clip(pixels, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(apply_colour(noise(), Colour(brightness, contrast)), expected)


def test_values_are_cut_and_not_rounded() -> None:
    image = np.full((1, 1, 3), 101, dtype=np.uint8)
    assert apply_colour(image, Colour(brightness=-0.1))[0, 0].tolist() == [100, 100, 100]
    assert apply_colour(image, Colour(brightness=0.9))[0, 0].tolist() == [101, 101, 101]


def test_values_out_of_range_are_clipped_and_do_not_wrap() -> None:
    image = np.array([[[250, 240, 10], [255, 0, 0], [0, 0, 0]]], dtype=np.uint8)
    brighter = apply_colour(image, Colour(brightness=30.0, contrast=1.2, saturation=1.2))
    assert brighter[0, 0, :2].tolist() == [255, 255]
    assert apply_colour(image, Colour(saturation=1.2))[0, 1].tolist() == [255, 0, 0]
    assert apply_colour(image, Colour(brightness=-32.0))[0, 2].tolist() == [0, 0, 0]


def test_grey_has_no_saturation_to_change_and_the_largest_channel_stays() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    image = noise()
    for factor in np.random.default_rng(1).uniform(0.8, 1.2, 50).tolist():
        np.testing.assert_array_equal(apply_colour(grey, Colour(saturation=factor)), grey)
        changed = apply_colour(image, Colour(saturation=factor))
        np.testing.assert_array_equal(changed.max(axis=2), image.max(axis=2))


@pytest.mark.parametrize("order", CHANNEL_ORDERS)
def test_channels_change_places(order: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(apply_colour(noise(), Colour(channels=order)), noise()[..., list(order)])


def test_the_image_itself_is_not_touched() -> None:
    image = noise()
    apply_colour(image, Colour(brightness=9.0, saturation=0.9, channels=(1, 2, 0)))
    np.testing.assert_array_equal(image, noise())


def test_draws_have_the_published_ranges_and_odds() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_colour(rng) for _ in range(4000)]
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.8, 1.2), ("saturation", 0.8, 1.2)):
        values = [value for draw in draws if (value := getattr(draw, name)) is not None]
        assert len(values) / len(draws) == pytest.approx(0.5, abs=0.03)
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high
    assert {draw.channels for draw in draws} == set(CHANNEL_ORDERS)
    moved = sum(draw.channels != (0, 1, 2) for draw in draws) / len(draws)
    assert moved == pytest.approx(0.2 * 5 / 6, abs=0.02)
