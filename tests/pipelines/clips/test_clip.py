"""One clip, drawn and made (spec data.md §3)."""

import io
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.clips.augmentation import SMALL, ClipRecipe
from pipelines.clips.clip import Clip, ClipParams, ClipSample, apply_params, sample_params
from pipelines.clips.colour import Colour, apply_colour
from pipelines.clips.geometry import Crop, Geometry, Sizes, transform_image, transform_mask
from pipelines.clips.pseudo_video import copy_image, copy_mask
from pipelines.clips.sampling import clip_rng
from pipelines.images import object_map
from sgmg.masks import Size, mask_to_rle, mask_to_xyxy

SIZE = (48, 80)
SMALL_VIDEO = ClipRecipe.video(5, SMALL)
SMALL_ASKED = ClipRecipe.one_target_frame(5, SMALL)
SMALL_IMAGE = ClipRecipe.image(SMALL)
SMALL_COPIES = ClipRecipe.pseudo_video(5, SMALL)


def encoded(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def mask_at(top: int, left: int, height: int = 20, width: int = 30, size: Size = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


PICTURES = [np.random.default_rng(frame).integers(0, 256, (*SIZE, 3), dtype=np.uint8) for frame in range(12)]
MASKS = [mask_at(10 + frame, 20 + frame) for frame in range(12)]


def sample(anchor: int = 5, masks: list[np.ndarray] | None = None, text: str = "the left one") -> ClipSample:
    return ClipSample(text, anchor, SIZE, [mask_to_rle(mask) for mask in masks or MASKS])


def drawn_clip(recipe: ClipRecipe, of: ClipSample, seed: int = 0) -> ClipParams:
    drawn = sample_params(recipe, of, np.random.default_rng(seed))
    assert drawn is not None
    return drawn


def made(drawn: ClipParams, of: ClipSample) -> Clip:
    frames = [encoded(PICTURES[frame]) for frame in drawn.distinct]
    return apply_params(drawn, frames, [of.rles[frame] for frame in drawn.distinct])


def with_flip(recipe: ClipRecipe, flip: bool = True) -> ClipRecipe:
    return replace(recipe, flip=float(flip), resize="pillow")  # as published


def test_a_clip_of_a_video_is_resized_then_mirrored_then_coloured() -> None:
    drawn = drawn_clip(with_flip(SMALL_VIDEO), sample())
    clip = made(drawn, sample())
    for place, frame in enumerate(drawn.frames):
        image = cv2.flip(transform_image(PICTURES[frame], drawn.geometry, "pillow"), 1)
        np.testing.assert_array_equal(clip.frames[place], apply_colour(image, drawn.colours[place]))
        np.testing.assert_array_equal(clip.masks[place], transform_mask(MASKS[frame], drawn.geometry)[:, ::-1])
    assert clip.target_frame is None


def test_a_clip_with_one_frame_asked_is_mirrored_then_coloured_then_resized() -> None:
    drawn = drawn_clip(with_flip(SMALL_ASKED), sample())
    clip = made(drawn, sample())
    for place, frame in enumerate(drawn.frames):
        image = apply_colour(cv2.flip(PICTURES[frame], 1), drawn.colours[place])
        np.testing.assert_array_equal(clip.frames[place], transform_image(image, drawn.geometry, "pillow"))
    mirrored = np.ascontiguousarray(MASKS[5][:, ::-1])
    np.testing.assert_array_equal(clip.masks, transform_mask(mirrored, drawn.geometry)[None])
    assert clip.boxes.shape == (1, 4)
    assert clip.valid.tolist() == [True]


def test_an_image_is_mirrored_then_resized_and_keeps_its_colours() -> None:
    of = replace(sample(0, MASKS[:1]), boxes=[(20.25, 9.5, 50.75, 31.0)])
    drawn = drawn_clip(with_flip(SMALL_IMAGE), of)
    clip = made(drawn, of)
    assert drawn.colours == ()
    np.testing.assert_array_equal(clip.frames[0], transform_image(cv2.flip(PICTURES[0], 1), drawn.geometry, "pillow"))


def test_the_annotated_box_is_the_target_of_an_image_and_of_nothing_else() -> None:
    of = replace(sample(0, MASKS[:1]), boxes=[(4.0, 8.0, 16.0, 24.0)])
    plain = replace(SMALL, at_once=Sizes((96,)))

    def box(recipe: ClipRecipe) -> list[float]:
        recipe = replace(recipe, flip=0.0, geometry=plain)
        draws = [drawn_clip(recipe, of, seed) for seed in range(20)]
        return list(next(draw for draw in draws if draw.geometry.crop is None).boxes[0])

    assert box(ClipRecipe.image()) == [8, 16, 32, 48]
    assert box(ClipRecipe.one_target_frame()) == [2 * side for side in mask_to_xyxy(MASKS[0])]


def test_without_annotated_boxes_those_of_the_masks_are_taken() -> None:
    of = sample(0, MASKS[:1])
    from_masks = replace(SMALL_IMAGE, annotated_boxes=False)
    assert drawn_clip(SMALL_IMAGE, of) == drawn_clip(from_masks, replace(of, boxes=[(4.0, 8.0, 16.0, 24.0)]))
    assert drawn_clip(SMALL_IMAGE, of) == drawn_clip(SMALL_IMAGE, replace(of, boxes=[None]))


@pytest.mark.parametrize("recipe", [SMALL_VIDEO, SMALL_ASKED])
@pytest.mark.parametrize("flip", [True, False])
def test_boxes_lie_round_the_masks(recipe: ClipRecipe, flip: bool) -> None:
    for seed in range(30):
        clip = made(drawn_clip(with_flip(recipe, flip), sample(), seed), sample())
        found = mask_to_xyxy(clip.masks).astype(float)
        # A box ends on the object's last pixel, which is 3 to 4 pixels wide after resizing.
        np.testing.assert_allclose(clip.boxes[clip.valid], found[clip.valid], atol=6)
        assert clip.boxes.dtype == np.float32


def test_the_box_of_an_invalid_frame_is_zero_also_after_a_flip_and_its_mask_stays() -> None:
    masks = [np.zeros(SIZE, dtype=np.bool_)] * 5 + [MASKS[5]] + [mask_at(5, 40, 30, 1)] * 6
    for recipe in (SMALL_VIDEO, replace(SMALL_VIDEO, steps=SMALL_ASKED.steps)):
        clip = made(drawn_clip(with_flip(replace(recipe, reverse=0.0)), sample(5, masks)), sample(5, masks))
        assert 0 < clip.valid.sum() < 5
        assert clip.boxes[~clip.valid].tolist() == [[0, 0, 0, 0]] * int((~clip.valid).sum())
        assert clip.masks[~clip.valid].any(axis=(1, 2)).any()  # the one column


def test_an_object_cropped_away_is_not_valid() -> None:
    geometry = replace(SMALL, crop_side=(96, 96))
    masks = [mask_at(0, 0, 48, 20), *MASKS[1:11], mask_at(0, 60, 48, 20)]
    cut = 0
    for seed in range(40):
        drawn = drawn_clip(replace(SMALL_VIDEO, geometry=geometry), sample(5, masks), seed)
        clip = made(drawn, sample(5, masks))
        found = mask_to_xyxy(clip.masks)
        sure = (found[:, 2] - found[:, 0] > 4) & (found[:, 3] - found[:, 1] > 4)
        assert clip.valid[sure].all()
        assert not clip.valid[~clip.masks.any(axis=(1, 2))].any()
        cut += int((~clip.valid).sum())
    assert cut


def test_a_flip_changes_the_sentence_and_no_flip_does_not() -> None:
    draws = [drawn_clip(SMALL_VIDEO, sample(), seed) for seed in range(200)]
    for drawn in draws:
        assert drawn.text == ("the right one" if drawn.flip else "the left one")
    assert np.mean([drawn.flip for drawn in draws]) == pytest.approx(0.5, abs=0.09)
    assert made(draws[0], sample()).text == draws[0].text


def test_only_clips_of_videos_run_backwards_three_in_ten() -> None:
    def backwards(recipe: ClipRecipe) -> float:
        clips = [drawn_clip(recipe, sample(), seed).frames for seed in range(200)]
        assert all(list(clip) in (sorted(clip), sorted(clip)[::-1]) for clip in clips)
        return np.mean([list(clip) != sorted(clip) for clip in clips]).item()

    assert backwards(SMALL_VIDEO) == pytest.approx(0.3, abs=0.09)
    assert backwards(SMALL_ASKED) == 0


def test_the_asked_frame_is_at_the_first_of_its_places() -> None:
    for anchor in (0, 5, 11):
        for seed in range(10):
            drawn = drawn_clip(SMALL_ASKED, sample(anchor), seed)
            assert drawn.target_frame == drawn.frames.index(anchor)
            assert drawn.targets == (drawn.target_frame,)
            assert made(drawn, sample(anchor)).target_frame == drawn.target_frame


def test_only_the_asked_frame_needs_an_annotation() -> None:
    of = sample()
    of = replace(of, rles=[rle if frame == 5 else None for frame, rle in enumerate(of.rles)])
    clip = made(drawn_clip(SMALL_ASKED, of), of)
    assert clip.frames.shape[0] == 5
    assert clip.masks.shape[0] == 1
    with pytest.raises(ValueError, match=r"has no annotation for 'the left one'.*only the annotated frames"):
        sample_params(SMALL_VIDEO, of, np.random.default_rng(0))


def test_all_frames_share_the_geometry_and_each_has_its_own_colours() -> None:
    drawn = drawn_clip(SMALL_VIDEO, sample())
    assert len(drawn.colours) == 5
    assert len(set(drawn.colours)) > 1


def test_a_frame_that_occurs_twice_is_wanted_once_and_may_get_two_colours() -> None:
    of = sample(0, MASKS[:2])
    drawn = replace(drawn_clip(SMALL_VIDEO, of), colours=(Colour(), Colour(9.0), Colour(-9.0), Colour(), Colour()))
    assert drawn.distinct == (0, 1)
    clip = made(drawn, of)
    assert clip.frames.shape[0] == 5
    first, again = (place for place, frame in enumerate(drawn.frames[:3]) if frame == drawn.frames[0])
    assert not np.array_equal(clip.frames[first], clip.frames[again])
    np.testing.assert_array_equal(clip.masks[first], clip.masks[again])


def test_a_sample_without_a_valid_frame_is_drawn_again_and_then_dropped() -> None:
    nothing = [np.zeros(SIZE, dtype=np.bool_)] * 12
    assert sample_params(SMALL_VIDEO, sample(5, nothing), np.random.default_rng(0)) is None
    # Ten redraws after the first draw, each with the next random numbers.
    rng, once = np.random.default_rng(0), np.random.default_rng(0)
    sample_params(SMALL_VIDEO, sample(5, nothing), rng)
    for _ in range(11):
        sample_params(replace(SMALL_VIDEO, redraws=0), sample(5, nothing), once)
    assert rng.random() == once.random()


def test_a_redraw_goes_on_with_the_next_random_numbers() -> None:
    # Only frame 0 holds the object, which few clips round frame 3 contain.
    masks = [MASKS[0]] + [np.zeros(SIZE, dtype=np.bool_)] * 11
    redraws = Counter()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        if (drawn := sample_params(SMALL_VIDEO, sample(6, masks), rng)) is None:
            redraws["dropped"] += 1
            continue
        assert 0 in drawn.frames
        assert any(drawn.valid)
        rng = np.random.default_rng(seed)
        once = [sample_params(replace(SMALL_VIDEO, redraws=0), sample(6, masks), rng) for _ in range(drawn.redraws + 1)]
        assert once == [None] * drawn.redraws + [replace(drawn, redraws=0)]
        redraws[drawn.redraws] += 1
    assert len(redraws) > 3
    assert max(count for count in redraws if count != "dropped") <= 10


def test_a_clip_of_copies_has_the_image_once_and_copies_at_the_other_places() -> None:
    of = sample(0, MASKS[:1])
    places = Counter()
    for seed in range(60):
        drawn = drawn_clip(with_flip(SMALL_COPIES, seed % 2 == 0), of, seed)
        assert drawn.distinct == (0,)
        assert drawn.copies.count(None) == 1
        assert len(set(drawn.copies)) == 5
        places[drawn.copies.index(None)] += 1
    assert set(places) == set(range(5))


@pytest.mark.parametrize("flip", [True, False])
def test_copies_are_made_first_and_boxes_taken_from_their_masks(flip: bool) -> None:
    of = replace(sample(0, MASKS[:1]), boxes=[(0.0, 0.0, 79.0, 47.0)])
    drawn = drawn_clip(with_flip(SMALL_COPIES, flip), of)
    drawn = replace(drawn, geometry=Geometry(SIZE, None, SIZE))
    clip = made(drawn, of)
    for place, copy in enumerate(drawn.copies):
        image = PICTURES[0] if copy is None else copy_image(PICTURES[0], copy)
        image = cv2.flip(image, 1) if flip else image
        np.testing.assert_array_equal(clip.frames[place], apply_colour(image, drawn.colours[place]))
        mask = MASKS[0] if copy is None else copy_mask(MASKS[0], copy)
        np.testing.assert_array_equal(clip.masks[place], mask[:, ::-1] if flip else mask)
    plain = replace(SMALL_COPIES, flip=0.0, geometry=replace(SMALL, at_once=Sizes((48,))))
    draws = [drawn_clip(plain, of, seed) for seed in range(20)]
    drawn = next(draw for draw in draws if draw.geometry.crop is None)
    np.testing.assert_array_equal(np.array(drawn.boxes), mask_to_xyxy(made(drawn, of).masks))


def test_the_same_generator_gives_the_same_clip_twice() -> None:
    for recipe, of in (
        (SMALL_VIDEO, sample()),
        (SMALL_ASKED, sample()),
        (SMALL_IMAGE, sample(0, MASKS[:1])),
        (SMALL_COPIES, sample(0, MASKS[:1])),
    ):
        first, second = (sample_params(recipe, of, clip_rng(3, 1, "bear/0/5")) for _ in range(2))
        assert first is not None
        assert first == second
        once, again = made(first, of), made(first, of)
        for name in ("frames", "masks", "boxes", "valid"):
            np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
        assert sample_params(recipe, of, clip_rng(3, 2, "bear/0/5")) != first


def test_a_draw_travels_between_processes() -> None:
    drawn = drawn_clip(SMALL_COPIES, sample(0, MASKS[:1]))
    assert pickle.loads(pickle.dumps(drawn)) == drawn


def test_wrong_frames_are_refused() -> None:
    drawn = drawn_clip(SMALL_VIDEO, sample())
    with pytest.raises(ValueError, match="0 frames and 0 RLEs were given for frames"):
        apply_params(drawn, [], [])
    other = [encoded(np.zeros((9, 9, 3), dtype=np.uint8))] * len(drawn.distinct)
    with pytest.raises(ValueError, match=r"\(9, 9\), but its record says \(48, 80\)"):
        apply_params(drawn, other, [sample().rles[frame] for frame in drawn.distinct])


def test_a_real_video_gives_clips_whose_boxes_and_masks_agree(data_kit: Path) -> None:
    folder = data_kit / "vos" / "blackswan"
    files = sorted((folder / "JPEGImages").glob("*.jpg"))
    rles = [mask_to_rle(object_map((folder / "Annotations" / f"{file.stem}.png").read_bytes()) > 0) for file in files]
    of = ClipSample("the swan on the left", 10, (480, 854), rles)
    for recipe in (ClipRecipe.video(), ClipRecipe.one_target_frame(), replace(ClipRecipe.video(), resize="torch")):
        drawn = drawn_clip(recipe, of)
        clip = apply_params(
            drawn, [files[at].read_bytes() for at in drawn.distinct], [rles[at] for at in drawn.distinct]
        )
        assert clip.frames.shape[1:3] == clip.masks.shape[1:] == drawn.geometry.size
        assert max(drawn.geometry.size) <= 640
        assert clip.valid.all()
        np.testing.assert_allclose(clip.boxes, mask_to_xyxy(clip.masks), atol=3)


def test_cropped_frames_and_masks_show_the_same_part(data_kit: Path) -> None:
    folder = data_kit / "vos" / "blackswan"
    mask = object_map((folder / "Annotations" / "00000.png").read_bytes()) > 0
    picture = encoded(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    geometry = Geometry((480, 854), Crop((500, 889), 60, 300, (400, 500)), (352, 440))
    drawn = drawn_clip(replace(ClipRecipe.image(), flip=1.0), ClipSample("x", 0, (480, 854), [mask_to_rle(mask)]))
    clip = apply_params(replace(drawn, geometry=geometry), [picture], [mask_to_rle(mask)])
    assert ((clip.frames[0, ..., 0] > 127) != clip.masks[0]).mean() < 0.01
