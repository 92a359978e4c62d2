"""The published recipes, word by word, and what a recipe refuses."""

from dataclasses import replace
from typing import Any

import pytest

from pipelines.clips.augmentation import IMAGE, SMALL, STANDARD, ClipRecipe


def test_the_published_orders_and_odds() -> None:
    video, asked = ClipRecipe.video(), ClipRecipe.one_target_frame()
    image, copies = ClipRecipe.image(), ClipRecipe.pseudo_video()
    assert video.steps == ("geometry", "flip", "colour")
    assert asked.steps == ("flip", "colour", "geometry")
    assert image.steps == ("flip", "geometry")
    assert copies.steps == ("copy", "flip", "colour", "geometry")
    recipes = (video, asked, image, copies)
    assert [recipe.length for recipe in recipes] == [5, 5, 1, 5]
    assert [recipe.reverse for recipe in recipes] == [0.3, 0, 0, 0]
    assert [recipe.geometry for recipe in recipes] == [STANDARD, STANDARD, IMAGE, STANDARD]
    assert {recipe.flip for recipe in recipes} == {0.5}
    assert {recipe.redraws for recipe in recipes} == {10}
    assert {recipe.resize for recipe in recipes} == {"torch"}


def test_the_published_sizes() -> None:
    assert STANDARD.at_once == STANDARD.cropped
    assert IMAGE.cropped.short_sides[:3] == (296, 328, 360)
    assert (STANDARD.at_once.cap, IMAGE.at_once.cap, IMAGE.cropped.cap) == (640, 800, 640)
    for geometry in (STANDARD, IMAGE):
        assert geometry.enlarged.short_sides == (400, 500, 600)
        assert geometry.enlarged.cap is None
        assert geometry.crop_side == (384, 600)


def test_any_recipe_takes_small_sizes() -> None:
    assert ClipRecipe.video(3, SMALL).geometry == SMALL
    assert ClipRecipe.image(SMALL).geometry == SMALL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"length": 2}, "length=2"),
        ({"length": 0}, "length=0"),
        ({"steps": ("flip", "colour")}, "must hold `geometry`"),
        ({"steps": ("flip", "geometry", "flip")}, "each step once"),
        ({"steps": ("flip", "copy", "geometry")}, "copied before anything else"),
        ({"steps": ("blur", "geometry")}, "blur"),
        ({"flip": 1.5}, "flip=1.5"),
        ({"reverse": -0.1}, "reverse=-0.1"),
        ({"redraws": -1}, "redraws=-1"),
        ({"resize": "opencv"}, "pillow, torch"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_a_recipe_that_cannot_be_is_refused_at_birth(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(ClipRecipe.video(), **change)
